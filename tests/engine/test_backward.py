"""Objects given in the middle of a clip are found before it, and nothing after it changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.backward import (
    BackwardPass,
    BackwardTracks,
    first_prompts,
    reversed_in_time,
)
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import PromptError, SourceError, StoreError
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.sources import ArraySource, open_source
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.tracking.compositor import compose
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Track, box_of
from tests.support.media import moving_shapes, write_video
from tests.support.stores import FRAME, files

ROOT = Path(__file__).parents[2]
COUNT, GIVEN = 30, 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two shapes: path and true masks."""
    frames, masks = moving_shapes(COUNT, (180, 320), shapes=2, seed=3)
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    return write_video(path, frames, options={"bf": "3", "g": "12"}), masks


def box(masks, frame: int, object_id: int) -> dict:
    rows, columns = np.nonzero(masks[frame] == object_id)
    xyxy = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return {"frame": frame, "type": "box", "object": object_id, "xyxy": [float(v) for v in xyxy]}


def log(*events: dict) -> PromptLog:
    return PromptLog.model_validate({"version": 1, "events": events})


def click(frame: int, object_id: int = 1) -> dict:
    return {"frame": frame, "type": "point", "object": object_id, "xy": [5, 5]}


def remove(frame: int, object_id: int = 1) -> dict:
    return {"frame": frame, "type": "remove", "object": object_id}


def tracked(path, prompts, *, backward=None, seeded=False, **options):
    config = PipelineConfig(seeding=SeedingConfig(enabled=seeded))
    source = open_source(path, **options)
    return list(Pipeline(config).stream(source, prompts, backward=backward))


def iou(result, masks, object_id: int) -> float:
    found, true = result.labels == object_id, masks[result.index] == object_id
    return float((found & true).sum() / (found | true).sum())


def assert_same(one, other) -> None:
    assert np.array_equal(one.labels, other.labels)
    assert replace(one, labels=other.labels) == other


@pytest.mark.parametrize(("seeded", "stride"), [(False, 1), (True, 2)])
def test_a_prompt_in_the_middle_is_followed_back_and_nothing_after_it_changes(clip, seeded, stride):
    path, masks = clip
    prompts = log(box(masks, 0, 1), box(masks, GIVEN, 2))
    alone = tracked(path, prompts, seeded=seeded, stride=stride)
    both = tracked(path, prompts, seeded=seeded, stride=stride, backward=BackwardPass())
    assert [r.index for r in both] == list(range(0, COUNT, stride))
    for without, result in zip(alone, both, strict=True):
        if result.index >= GIVEN:
            assert_same(result, without)
            continue
        assert 2 not in [o.id for o in without.objects]
        assert result.keyframe == without.keyframe
        assert np.all(result.labels[result.labels != without.labels] == 2)
        ids = {o.id for o in without.objects}
        assert {o.id for o in result.objects} == ids | {2}
    if not seeded:
        assert np.mean([iou(r, masks, 2) for r in both if r.index < GIVEN]) > 0.8


def test_each_object_goes_back_from_its_own_prompt(clip):
    path, masks = clip
    prompts = log(box(masks, 12, 1), box(masks, GIVEN, 2), remove(25, 1))
    results = tracked(path, prompts, backward=BackwardPass())
    for object_id in (1, 2):
        ious = [iou(r, masks, object_id) for r in results if r.index < 12]
        assert np.mean(ious) > 0.75, np.round(ious, 2)
    assert 1 not in [o.id for o in results[25].objects]


def test_a_range_is_followed_back_to_its_start(clip):
    path, masks = clip
    results = tracked(path, log(box(masks, GIVEN, 2)), backward=BackwardPass(), start=7, end=25)
    assert [r.index for r in results] == list(range(7, 25))
    assert all(iou(r, masks, 2) > 0.6 for r in results)


@pytest.mark.slow
def test_it_repeats_itself_bit_for_bit(clip):
    path, masks = clip
    prompts = log(box(masks, GIVEN, 2))
    first, second = (tracked(path, prompts, backward=BackwardPass()) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("options", [{}, {"start": 5}])
@pytest.mark.slow
def test_without_a_prompt_after_the_first_frame_it_does_nothing(clip, options):
    path, masks = clip
    first = options.get("start", 0)
    prompts = log(box(masks, first, 1), box(masks, first, 2))
    alone = tracked(path, prompts, **options)
    both = tracked(path, prompts, backward=BackwardPass(), **options)
    for one, other in zip(alone, both, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([click(0)], []),
        ([click(3)], [click(3)]),
        ([click(3), click(5)], [click(3)]),
        ([click(5), click(3), click(3)], [click(3), click(3)]),
        ([click(0), click(5), click(4, 2)], [click(4, 2)]),
        ([remove(2), click(3), remove(9)], [click(3)]),
        ([click(3), remove(3)], [click(3), remove(3)]),
        ([remove(3)], []),
    ],
)
def test_what_it_is_told(events, kept):
    assert first_prompts(log(*events)) == log(*kept)


@pytest.mark.parametrize(("pts", "mirror"), [([9, 4, 0], [0, 5, 9]), ([None, None], [None, None])])
def test_time_runs_forward_in_it(pts, mirror):
    frames = [replace(FRAME, index=i, pts=p) for i, p in enumerate(pts)]
    assert [f.pts for f in reversed_in_time(frames)] == mirror
    assert [f.index for f in reversed_in_time(frames)] == list(range(len(pts)))


def test_a_prompt_beyond_the_clip_is_an_error_before_anything_is_tracked(clip):
    with pytest.raises(PromptError, match="frame 99"):
        tracked(clip[0], log(click(99)), backward=BackwardPass())


def test_a_source_that_can_be_read_only_once_is_refused():
    frames = (np.zeros((20, 20, 3), np.uint8) for _ in range(3))
    with pytest.raises(SourceError, match="only once"):
        list(Pipeline(PipelineConfig()).stream(ArraySource(frames), backward=BackwardPass()))


def track(object_id: int, logits, state=TrackState.TRACKED) -> Track:
    found = box_of(logits > 0)
    motion = KalmanBox.start(np.array([3.0, 2, 9, 7]) if found is None else found)
    return Track(object_id, logits, motion, 0.1 + object_id / 7, state, True, 0.0)


def test_masks_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    kept = BackwardTracks(tmp_path)
    given = {}
    for index in (90, 70, 50, 30, 10):
        near = np.full((18, 32), -3.0, np.float32)
        near[: index // 10, 4:20] = rng.integers(-4, 8, (index // 10, 16)) / 4
        far = track(5, np.full((18, 32), -1, np.float32), TrackState.LOST)
        given[index] = [track(2, near), far]
        kept.add(index, given[index])
    kept.add(5, [])
    for index in (0, 5, 10, 30, 31, 70, 90, 95):  # 50 is passed over
        found = compose(kept.at(index), (90, 160))
        expected = compose(given.get(index, []), (90, 160))
        assert np.array_equal(found.labels, expected.labels)
        assert found.objects == expected.objects
    assert list(tmp_path.iterdir()) == []
    kept.close()


def test_masks_go_to_the_disk_under_no_name(tmp_path):
    kept = BackwardTracks(tmp_path)
    noise = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32) + 1
    for index in range(30, 0, -1):
        kept.add(index, [track(1, noise)])
    assert list(tmp_path.iterdir()) == []
    assert [len(kept.at(index)) for index in range(32)] == [0, *[1] * 30, 0]
    kept.close()


def test_a_disk_that_refuses_is_a_sentence(tmp_path):
    kept = BackwardTracks(tmp_path / "nowhere")
    noise = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
    with pytest.raises(StoreError, match="backward pass cannot keep its masks"):
        for index in range(9, 0, -1):
            kept.add(index, [track(1, noise)])
    kept.close()


def test_an_error_in_it_leaves_no_thread_behind(clip):
    path, masks = clip
    before = threading.active_count()

    def interrupt(result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracked(path, log(box(masks, GIVEN, 2)), backward=BackwardPass(on_frame=interrupt))
    assert threading.active_count() == before


@pytest.fixture
def asked(clip, tmp_path):
    """Arguments of a run with a prompt in the middle, but for the output."""
    path, masks = clip
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"version": 1, "events": [box(masks, GIVEN, 2)]}))
    return ("run", path, "--prompts", prompts, "--no-seed", "--json", "--no-refine", "--backward")


@pytest.mark.slow
def test_a_resumed_store_equals_an_uninterrupted_one(cli, asked, tmp_path):
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    code, out, err = cli(*asked, "-o", whole)
    assert code == 0, err
    assert json.loads(out)["stage_ms"]["backward"] > 0
    assert cli(*asked, "-o", parts, "--end", GIVEN + 1)[0] == 0
    assert cli(*asked, "-o", parts, "--resume")[0] == 0
    assert contents(whole) == contents(parts)
    assert {o.id for o in MaskStore(whole).frame(0).objects} == {2}
    assert {f.name for f in tmp_path.iterdir()} == {"parts.zarr", "prompts.json", "whole.zarr"}


def contents(store: Path) -> dict[str, bytes]:
    """The files of a store but its root, which knows how the run was begun."""
    return {name: data for name, data in files(store).items() if name != "zarr.json"}


def test_resuming_otherwise_than_begun_is_refused(cli, asked, tmp_path):
    store = tmp_path / "o.zarr"
    assert cli(*asked, "-o", store)[0] == 0
    code, _, err = cli(*asked[:-1], "-o", store, "--resume")
    assert (code, "backward" in err) == (1, True)
    events = [*json.loads(asked[3].read_text())["events"], click(25, 3)]
    asked[3].write_text(json.dumps({"version": 1, "events": events}))
    code, _, err = cli(*asked, "-o", store, "--resume")
    assert (code, "--overwrite" in err) == (1, True)
    assert len(MaskStore(store)) == COUNT


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_killed_in_it_leaves_an_empty_store_that_can_be_resumed(cli, tmp_path, sent):
    frames, masks = moving_shapes(20, (90, 160), shapes=1)
    clip = write_video(tmp_path / "long.mp4", np.concatenate([frames] * 8))
    prompts = tmp_path / "prompts.json"
    event = box(masks, 19, 1) | {"frame": 159}
    prompts.write_text(json.dumps({"version": 1, "events": [event]}))
    store = tmp_path / "o.zarr"
    asked = ("run", clip, "-o", store, "--prompts", prompts, "--no-seed", "--backward", "--quiet")
    process = subprocess.Popen(
        [sys.executable, "run_pipeline.py", *map(str, asked)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (store / "zarr.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # the store is made; the backward pass takes seconds
    os.kill(process.pid, sent)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if sent == signal.SIGINT:
        assert process.returncode == 130, err
        assert "0 frames are safe" in err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["long.mp4", "o.zarr", "prompts.json"]
    code, _, err = cli(*asked, "--resume")
    assert code == 0, err
    assert len(MaskStore(store)) == 160
    assert {o.id for o in MaskStore(store).frame(150).objects} == {1}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """Resident memory after 300 and after 590 of its frames, in a process of its own."""
    frames, _ = moving_shapes(50, (90, 160), shapes=1)
    clip = write_video(tmp_path / "a.mp4", np.concatenate([frames] * 12))
    ran = subprocess.run(
        [sys.executable, "-c", _LONG_RUN, clip], capture_output=True, text=True, check=True
    )
    early, late = map(float, ran.stdout.split())
    assert late - early < 10


_LONG_RUN = """
import sys
from maskstream.pipeline.engine.backward import BackwardPass
from maskstream.pipeline.config import KeyframeConfig, PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.sources import open_source
from tests.engine.test_pipeline import resident_mb

def tell(result):
    if result.index in (299, 9):
        print(resident_mb())

unseeded = SeedingConfig(enabled=False)
config = PipelineConfig(keyframes=KeyframeConfig(interval=20), seeding=unseeded)
box = {"frame": 599, "type": "box", "object": 1, "xyxy": [20, 20, 90, 70]}
prompts = PromptLog.model_validate({"version": 1, "events": [box]})
back = BackwardPass(on_frame=tell)
next(Pipeline(config).stream(open_source(sys.argv[1]), prompts, backward=back))
"""
