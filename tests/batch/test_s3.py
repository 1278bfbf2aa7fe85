"""A bucket in and out: videos, prompts, a manifest, stores, exports and the report on S3 (moto)."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.dataset
import pytest

from maskstream.pipeline.batch.files import fetch
from maskstream.pipeline.batch.inputs import tasks_of
from maskstream.pipeline.batch.tasks import BatchJob, Failure, State
from maskstream.pipeline.batch.worker import OpenRuns
from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError, SourceError, SourceNotFoundError
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")

CLICK = {"frame": 0, "type": "point", "object": 1, "xy": [80, 45], "label": 1}


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", moving_shapes(6, (90, 160), shapes=2, seed=1)[0])


@pytest.fixture
def bucket(s3, clip):
    """A bucket with a clip, prompts for it, and a manifest."""
    s3.put(str(clip), "s3://films/in/clip.mp4")
    s3.pipe("s3://films/in/prompts.json", json.dumps({"version": 1, "events": [CLICK]}).encode())
    s3.pipe("s3://films/in/m.csv", b"input,prompts\nclip.mp4,prompts.json\nnone.mp4,\n")
    return s3


@pytest.fixture
def job():
    return BatchJob(
        "s3://films/out",
        load_config(None, ["tracking.refine=false", "store.commit_frames=1"]),
        exports=("coco", "davis"),
    )


def test_a_manifest_a_video_and_all_results_are_in_the_bucket(bucket, job, clip):
    task, missing = tasks_of(["s3://films/in/m.csv"])
    outcome = OpenRuns(job)()(task)
    assert (outcome.state, outcome.frames, outcome.error) == (State.DONE, 6, "")
    store = MaskStore("s3://films/out/clip.zarr")
    assert (store.complete, store.source.name) == (True, "s3://films/in/clip.mp4")
    assert store.attributes["identity"] == identity_of(clip)
    assert len(store.events) == 1
    assert json.loads(bucket.cat("s3://films/out/clip.coco.json"))["images"]
    assert len(bucket.find("s3://films/out/clip.davis")) == 6
    assert OpenRuns(job)()(task).state is State.SKIPPED
    outcome = OpenRuns(job)()(missing)
    assert outcome.failure is Failure.FINAL
    assert "no file s3://films/in/none.mp4" in outcome.error


def test_what_one_machine_began_another_goes_on_with(bucket, job):
    (task,) = tasks_of(["s3://films/in/*.mp4"])
    job = replace(job, exports=())
    assert OpenRuns(job)()(replace(task, end="3")).run == 3
    assert (outcome := OpenRuns(job)()(task)).run == 3, outcome.error
    local = replace(job, out=job.out + "/again")
    assert OpenRuns(local)()(task).run == 6
    two = (MaskStore("s3://films/out/clip.zarr"), MaskStore("s3://films/out/again/clip.zarr"))
    assert all((a.labels == b.labels).all() for a, b in zip(*two, strict=True))


def test_patterns_of_urls_and_their_mistakes(bucket):
    bucket.pipe("s3://films/in/deep/b.mp4", b"x")
    assert [t.name for t in tasks_of(["s3://films/in/**/*.mp4"])] == ["clip", "deep/b"]
    assert [t.source for t in tasks_of(["s3://films/in/c*.mp4"])] == ["s3://films/in/clip.mp4"]
    with pytest.raises(SourceNotFoundError):
        list(tasks_of(["s3://films/in/*.mov"]))
    with pytest.raises(ConfigError, match="give a pattern"):
        list(tasks_of(["s3://films/in"]))


def test_a_complete_store_costs_no_copy_of_its_video(bucket, job, monkeypatch, caplog):
    (task,) = tasks_of(["s3://films/in/*.mp4"])
    caplog.set_level("INFO")
    work = OpenRuns(replace(job, config=load_config(), exports=()))()
    for state, requests_max in ((State.DONE, 110), (State.SKIPPED, 35)):
        caplog.clear()
        assert work(task).state is state
        requests = [text for text in caplog.messages if "HTTP/1.1" in text]
        assert len(requests) <= requests_max
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))


def test_a_video_that_does_not_fit_on_the_disk_is_not_fetched(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(SourceError, match="--scratch"):
        fetch("s3://films/in/clip.mp4", tmp_path)


def test_a_film_in_parts_from_bucket_to_bucket(cli, s3, tmp_path):
    first, second = (moving_shapes(8, (90, 160), shapes=2, seed=seed)[0] for seed in (3, 7))
    film = write_video(tmp_path / "film.mp4", np.concatenate([first, 255 - second]))
    s3.put(str(film), "s3://films/in/film.mp4")
    words = ("s3://films/in/film.mp4", "-o", "s3://films/out", "--json", "--split-shots")
    for expected in (("done", 16), ("skipped", 0)):
        code, out, err = cli("batch", *words, "--part-min", "0.2", "--workers", 1)
        assert code == 0, err
        end = json.loads(out.splitlines()[-1])
        assert (end["total"], end[expected[0]], end["frames"]) == (1, 1, expected[1])
    store = MaskStore("s3://films/out/film.zarr")
    assert (store.complete, store.span["part_min_s"], len(store)) == (True, 0.2, 16)
    s3.invalidate_cache()
    assert not s3.exists("s3://films/out/film.parts")


def test_the_command_from_bucket_to_bucket(cli, bucket):
    code, out, err = cli(
        "batch", "s3://films/in/*.mp4", "-o", "s3://films/out", "--json", "--export", "mot"
    )
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["done"] == 1
    assert bucket.exists("s3://films/out/clip.mot.txt")
    report = pyarrow.dataset.dataset("films/out/report.parquet", filesystem=bucket)
    assert report.to_table().to_pylist()[0]["source"] == "s3://films/in/clip.mp4"
