"""Videos in parts: the joined store, what is left of the parts, and what goes on where."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.batch.splitting import SplittingPool
from maskstream.pipeline.batch.tasks import BatchJob, Failure, State, Step, Task
from maskstream.pipeline.batch.worker import OpenRuns
from maskstream.pipeline.config import load_config
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.store import MaskStore, MaskStoreWriter, check_store
from maskstream.trackers.state import TrackState
from tests.support.media import moving_shapes, read, write_video
from tests.support.stores import files

CLIPS = Path(__file__).resolve().parents[3] / "shared/data/videos"
MASKS = Path(__file__).parents[1] / "real_masks"
SIZE = (90, 160)
PARTS = ((0, 12), (12, 24), (24, 36))
CLICK = {"frame": 0, "type": "point", "object": 1, "xy": [80, 45], "label": 1}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A scene of two shapes, a scene of another one, and the first scene going on."""
    first, masks = moving_shapes(24, SIZE, shapes=2, seed=3)
    between, _ = moving_shapes(12, SIZE, shapes=1, seed=7)
    frames = np.concatenate([first[:12], 255 - between, first[12:]])
    folder = tmp_path_factory.mktemp("film")
    np.save(folder / "masks.npy", masks)
    return write_video(folder / "film.mp4", frames)


class Here:
    """Runs each task in this process, at once. See `Executor`."""

    def __init__(self, job):
        self.work = OpenRuns(job)()
        self.log = []
        self.ended = []

    def free(self):
        return 1 - len(self.ended)

    def submit(self, task):
        outcome = self.work(task)
        self.log.append((task.step, outcome.state))
        self.ended.append((task, outcome))

    def wait(self, timeout_s):
        ended, self.ended = self.ended, []
        return ended

    def close(self):
        pass


def run(job, task):
    """The outcome of a task, and the steps with their states."""
    here = Here(job)
    pool = SplittingPool(here, job)
    pool.submit(task)
    while not (ended := pool.wait(0)):
        pass
    return ended[0][1], here.log


@pytest.fixture(scope="module")
def config():
    return load_config(None, ["store.commit_frames=1"])


@pytest.fixture
def job(config, tmp_path):
    return BatchJob(str(tmp_path / "out"), config, split_shots=True, part_min_s=0.4)


@pytest.fixture
def task(film):
    return Task(0, str(film), "deep/film")


@pytest.fixture(scope="module")
def made(film, config, tmp_path_factory):
    """The job and the store of the film in parts."""
    out = tmp_path_factory.mktemp("made")
    job = BatchJob(str(out), config, exports=("coco",), split_shots=True, part_min_s=0.4)
    outcome, log = run(job, Task(0, str(film), "film"))
    assert outcome.error == ""
    return job, MaskStore(out / "film.zarr"), outcome, log


def test_the_store_has_all_frames_and_is_sound(made):
    job, store, outcome, log = made
    assert [step for step, _ in log] == [Step.PLAN, *[Step.PART] * 3, Step.JOIN]
    assert (outcome.frames, outcome.run, outcome.objects) == (36, 36, len(store.objects()))
    assert store.complete
    assert store.indices.tolist() == list(range(36))
    assert store.span == {
        "start": None, "end": None, "stride": 1, "refine": True, "part_min_s": 0.4,
    }  # fmt: skip
    assert not check_store(store.path).problems
    assert store.review is not None
    with open(f"{job.out}/film.coco.json") as file:
        assert len(json.load(file)["images"]) == 36


def test_masks_are_those_of_runs_of_the_ranges(made, cli, film, tmp_path):
    _, store, _, _ = made
    for first, end in PARTS:
        place = tmp_path / f"{first}.zarr"
        code, _, err = cli(
            "run", film, "-o", place, "--start", first, "--end", end, "--quiet"
        )  # fmt: skip
        assert code == 0, err
        for single in MaskStore(place):
            joined = store.frame(single.index)
            assert (joined.pts, joined.keyframe) == (single.pts, single.keyframe)
            pairs = set(zip(single.labels.flat, joined.labels.flat, strict=True))
            assert len(pairs) == len(dict(pairs)) == len({new for _, new in pairs})  # 1 to 1
            assert [o.area for o in joined.objects] == [
                o.area for o in sorted(single.objects, key=lambda o: dict(pairs).get(o.id, 0))
            ]


def test_an_object_that_comes_back_keeps_its_identity(made, film):
    _, store, _, _ = made
    masks = np.load(film.with_name("masks.npy"))
    seen = {}
    for shape in (1, 2):
        before = _id_at(store.frame(11).labels, masks[11] == shape)
        after = _id_at(store.frame(24).labels, masks[12] == shape)
        assert before == after != 0
        seen[shape] = after
    assert len(set(seen.values())) == 2
    states = {o.id: o.state for o in store.frame(24).objects}
    assert {states[i] for i in seen.values()} == {TrackState.REENTERED}
    others = {o.id for row in range(12, 24) for o in store.frame(row).objects}
    assert not others & set(seen.values())


def _id_at(labels, mask):
    """The id that most pixels of a mask have."""
    return np.bincount(labels[mask]).argmax()


def test_a_second_time_nothing_is_done_and_parts_are_gone(made, film):
    job, store, _, _ = made
    before = files(store.path)
    outcome, log = run(job, Task(0, str(film), "film"))
    assert log == [(Step.PLAN, State.SKIPPED)]
    assert (outcome.frames, outcome.run) == (36, 0)
    assert files(store.path) == before
    assert sorted(place.name for place in store.path.parent.iterdir()) == [
        "film.coco.json",
        "film.zarr",
    ]


def test_complete_parts_are_not_run_again_and_a_half_joined_store_is_completed(
    made, job, task, tmp_path
):
    _, whole, _, _ = made
    work = OpenRuns(job)()
    planned = work(replace(task, step=Step.PLAN))
    assert planned.parts == PARTS
    for part in PARTS[:2]:
        assert work(replace(task, step=Step.PART, parts=(part,))).run == 12
    place = tmp_path / "out/deep/film.zarr"
    with pytest.raises(ZeroDivisionError), _writer(place, whole) as writer:  # killed in mid-join
        for row in range(5):
            writer.append(whole.frame(row))
        _ = 1 / 0
    assert not MaskStore(place).complete
    outcome, log = run(job, task)
    assert log == [
        (Step.PLAN, State.DONE), (Step.PART, State.SKIPPED), (Step.PART, State.SKIPPED),
        (Step.PART, State.DONE), (Step.JOIN, State.DONE),
    ]  # fmt: skip
    assert (outcome.state, outcome.run) == (State.DONE, 12)
    assert files(place) == files(whole.path)
    assert not (tmp_path / "out/deep/film.parts").exists()


def _writer(place, like):
    return MaskStoreWriter(
        place, info=like.source, attributes=like.attributes, span=like.span, frames_per_commit=1
    )


def test_a_failed_part_fails_the_video_with_its_sentence(job, task, film, tmp_path):
    work = OpenRuns(job)()
    assert work(replace(task, step=Step.PLAN)).parts == PARTS
    foreign = tmp_path / "out/deep/film.parts/00000012-00000024.zarr"
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    outcome, _ = run(job, task)
    assert (outcome.state, outcome.failure) == (State.FAILED, Failure.FINAL)
    assert outcome.error.startswith("Frames 12 to 23: ")
    assert "not a mask store" in outcome.error
    assert not (tmp_path / "out/deep/film.zarr").exists()
    shutil.rmtree(foreign)
    assert run(job, task)[0].state is State.DONE


def test_videos_of_one_part_and_videos_with_prompts_are_run_whole(job, task, film, tmp_path):
    long = replace(job, part_min_s=9.0)
    click = tmp_path / "click.json"
    click.write_text(json.dumps({"version": 1, "events": [CLICK]}))
    for made, given in ((long, task), (job, replace(task, name="p", prompts=str(click)))):
        outcome, log = run(made, given)
        assert [step for step, _ in log] == [Step.PLAN, Step.RUN], outcome.error
        assert "part_min_s" not in MaskStore(made.store_of(given)).span
    assert run(long, task)[1] == [(Step.PLAN, State.SKIPPED)]
    assert run(job, task)[1] == [(Step.PLAN, State.SKIPPED)]  # one run is as good


def test_a_store_of_other_settings_is_kept_unless_it_may_be_replaced(made, film, tmp_path):
    job, store, _, _ = made
    shutil.copytree(store.path, tmp_path / "film.zarr")
    other = replace(job, out=str(tmp_path), part_min_s=0.5, exports=())
    task = Task(0, str(film), "film")
    outcome, _ = run(other, task)
    assert "part_min_s 0.4 (now 0.5)" in outcome.error
    assert run(replace(other, split_shots=False), task)[0].failure is Failure.FINAL
    assert files(tmp_path / "film.zarr") == files(store.path)
    outcome, _ = run(replace(other, overwrite=True), task)
    assert (outcome.state, outcome.error) == (State.DONE, "")


def test_a_range_in_parts(made, job, task, tmp_path):
    _, whole, _, _ = made
    outcome, _ = run(job, replace(task, start="12", end="36"))
    assert (outcome.state, outcome.frames) == (State.DONE, 24), outcome.error
    store = MaskStore(tmp_path / "out/deep/film.zarr")
    assert store.indices.tolist() == list(range(12, 36))
    assert (store.frame(0).labels > 0).tolist() == (whole.frame(12).labels > 0).tolist()


def test_the_command_runs_a_film_in_parts(cli, film, made, tmp_path):
    _, whole, _, _ = made
    code, out, err = cli(
        "batch", film, "-o", tmp_path, "--split-shots", "--part-min", "0.4", "--workers", 2,
        "--set", "store.commit_frames=1", "--json",
    )  # fmt: skip
    assert code == 0, err
    end = json.loads(out.splitlines()[-1])
    assert (end["total"], end["done"], end["frames"]) == (1, 1, 36)
    assert files(tmp_path / "film.zarr") == files(whole.path)


def test_usage_of_split_shots_that_cannot_be(cli, film, tmp_path):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("1,1,10,10,20,20,1,-1,-1,-1\n")
    code, _, err = cli(
        "batch", film, "-o", tmp_path / "out", "--split-shots",
        "--set", f"detector.detections={boxes}",
    )  # fmt: skip
    assert code == 2
    assert "--split-shots goes with detectors" in " ".join(err.split())


@pytest.mark.slow
@pytest.mark.skipif(
    not CLIPS.is_dir() and os.environ.get("CI") != "true", reason=f"no videos at {CLIPS}"
)
def test_a_dog_and_a_woman_of_a_real_clip_are_known_after_another_scene(config, tmp_path):
    """Pieces of two clips; hand-checked masks say who is who on the first frame of a piece."""
    pieces = [("01_dog", 0), ("02_cups", 0), ("01_dog", 60)]
    frames = []
    for clip, start in pieces:
        _, _, read_frames = read(open_source(CLIPS / f"{clip}.mp4", start=start, end=start + 24))
        frames += [frame.rgb() for frame in read_frames]
    film = write_video(tmp_path / "film.mp4", frames)
    job = BatchJob(str(tmp_path / "out"), config, split_shots=True, part_min_s=0.5)
    outcome, log = run(job, Task(0, str(film), "film"))
    assert outcome.error == ""
    assert [step for step, _ in log].count(Step.PART) == 3
    store = MaskStore(tmp_path / "out/film.zarr")
    truth = [
        cv2.imread(str(MASKS / f"01_dog/000{n:02d}.png"), cv2.IMREAD_UNCHANGED) for n in (0, 60)
    ]
    for number in (1, 2):
        before, after = (
            _id_at(store.frame(row).labels, mask == number)
            for row, mask in zip((0, 48), truth, strict=True)
        )
        assert before == after != 0
    between = {o.id for row in range(24, 48) for o in store.frame(row).objects}
    assert not between & {o.id for o in store.frame(0).objects}
