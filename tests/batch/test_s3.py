"""A bucket in and out: videos, prompts, a manifest, stores, exports and the report on S3 (moto)."""

import json
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.dataset
import pytest

from maskstream.pipeline.batch import staging
from maskstream.pipeline.batch.failures import failure_of
from maskstream.pipeline.batch.files import RemoteFile, fetch
from maskstream.pipeline.batch.inputs import tasks_of
from maskstream.pipeline.batch.out_folder import check_out
from maskstream.pipeline.batch.staging import Staged
from maskstream.pipeline.batch.tasks import BatchJob, Failure, State, Step
from maskstream.pipeline.batch.worker import OpenRuns
from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError, SourceError, SourceNotFoundError, StoreError
from maskstream.pipeline.sources import VideoFile, open_source
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
    assert len(bucket.find("s3://films/out/clip.davis")) == 7  # with _SUCCESS
    assert OpenRuns(job)()(task).state is State.SKIPPED
    outcome = OpenRuns(job)()(missing)
    assert outcome.failure is Failure.FINAL
    assert "no file s3://films/in/none.mp4" in outcome.error


def test_a_folder_in_a_bucket_is_whole_or_made_again(bucket, job):
    """Also over what an upload left that was cut short; files of the one before do not stay."""
    task, _ = tasks_of(["s3://films/in/m.csv"])
    work = OpenRuns(replace(job, exports=("png",)))()
    assert work(replace(task, end="4")).frames == 4
    names = sorted(bucket.find("s3://films/out/clip.png"))
    assert (len(names), names[-1]) == (5, "films/out/clip.png/_SUCCESS")
    bucket.rm(names[-2:])
    bucket.pipe("s3://films/out/clip.png/old.png", b"old")
    assert work(replace(task, end="4")).state is State.SKIPPED
    assert sorted(bucket.find("s3://films/out/clip.png")) == names
    OpenRuns(replace(job, exports=()))()(task)
    assert work(task).state is State.SKIPPED
    assert len(bucket.find("s3://films/out/clip.png")) == 7


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
    matched = tasks_of(["s3://films/in/**/*.mp4"], "s3://films/in/deep/")
    assert [t.name for t in matched] == ["clip"]
    with pytest.raises(SourceNotFoundError):
        list(tasks_of(["s3://films/in/*.mov"]))
    with pytest.raises(ConfigError, match=r"such as s3://films/in/\*\*/"):
        list(tasks_of(["s3://films/in/"]))


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


def test_parts_of_a_large_video_are_read_by_range(bucket, job, clip, tmp_path, monkeypatch):
    """No copy is made, and the frames are those of a copy."""
    monkeypatch.setattr(staging, "RANGE_BYTES_MIN", 1000)
    (task,) = tasks_of(["s3://films/in/*.mp4"])
    job = replace(job, exports=(), out=str(tmp_path / "out"))
    ranges = (replace(task, start="2", end="5"), replace(task, step=Step.PART, parts=((3, 6),)))
    for part, frames in zip(ranges, ([2, 3, 4], [3, 4, 5]), strict=True):
        with Staged(job, part) as staged:
            with staged.open() as reader:
                read = list(reader)
            assert "path" not in vars(staged)  # no copy
        with open_source(clip, start=frames[0], end=frames[-1] + 1).open() as reader:
            for ours, expected in zip(read, reader, strict=True):
                assert (ours.index, ours.pts) == (expected.index, expected.pts)
                np.testing.assert_array_equal(ours.rgb(), expected.rgb())
    outcome = OpenRuns(job)()(ranges[0])
    assert (outcome.state, outcome.run, outcome.error) == (State.DONE, 3, "")
    assert MaskStore(tmp_path / "out/clip.zarr").source.name == "s3://films/in/clip.mp4"

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with Staged(job, task) as staged, staged.open() as reader:  # whole, but there is no room
        assert len(list(reader)) == 6
    monkeypatch.undo()


def test_a_connection_that_breaks_is_not_the_end_of_the_video(s3, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 240, 320, 3), np.uint8)
    clip = write_video(tmp_path / "noise.mp4", noise)
    s3.put(str(clip), "s3://films/noise.mp4")
    file = RemoteFile("s3://films/noise.mp4")
    with VideoFile(clip, content=lambda: file).open() as reader:
        frames = iter(reader)
        next(frames)
        file._file.close()
        with pytest.raises(SourceError, match=r"noise\.mp4 cannot be read") as found:
            list(frames)
    assert failure_of(found.value) is Failure.TRANSIENT


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


def test_one_batch_does_not_replace_what_it_has_written(bucket, job):
    task = replace(next(tasks_of(["s3://films/in/m.csv"])), prompts=None)
    job = replace(job, exports=(), overwrite=True, began=check_out(job.out))
    assert not bucket.exists("s3://films/out")
    assert OpenRuns(job)()(task).state is State.DONE
    time.sleep(1.1)  # the clock of S3 has whole seconds
    job = replace(job, began=check_out(job.out))
    time.sleep(1.1)
    work = OpenRuns(job)()
    assert work(task).state is State.SKIPPED
    outcome = work(replace(task, start="2"))
    assert (outcome.failure, "in this batch" in outcome.error) == (Failure.FINAL, True)


def test_a_bucket_that_is_missing_is_found_before_videos_run(s3):
    with pytest.raises(StoreError, match="s3://missing/out cannot be written"):
        check_out("s3://missing/out")
