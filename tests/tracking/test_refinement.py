"""Masks between two keyframes are a blend of both; everything else stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import (
    KeyframeConfig,
    PipelineConfig,
    QueueConfig,
    SeedingConfig,
    load_config,
)
from maskstream.pipeline.engine.backward import BackwardPass
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
from maskstream.pipeline.lab.evaluation.video.sprites import SpriteImages
from maskstream.pipeline.prompts import NO_PROMPTS, PromptLog, load_prompts
from maskstream.pipeline.runs.outputs import RunOutputs
from maskstream.pipeline.sources import ArraySource, open_source
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.tracking.refinement import (
    MAX_HELD_FRAMES,
    Refiner,
    TrackedFrame,
    blend_between_keyframes,
)
from maskstream.pipeline.types import Frame
from maskstream.trackers.flow import Flow, FlowEstimator
from maskstream.trackers.iou import pairwise_mask_iou
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Track, box_of
from tests.support.media import moving_shapes, write_video
from tests.support.stores import FRAME, assert_equal, files

pytestmark = pytest.mark.slow

SHAPE = (72, 128)
COUNT = 24  # the last keyframe of the clip is frame 20


def disc(x: float, y: float = 36, radius: float = 12) -> np.ndarray:
    """Logits of a disc."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (radius - np.hypot(columns + 0.5 - x, rows + 0.5 - y)).astype(np.float32)


def scene(shift: int) -> np.ndarray:
    """A smooth random luma picture moved to the right."""
    noise = np.random.default_rng(0).integers(0, 255, (72, 220), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(smooth[:, 60 - shift : 188 - shift])


def flows(count: int, step: int = 2) -> list[Flow | None]:
    """Flow to each of `count` frames between which everything moves to the right."""
    estimator = FlowEstimator()
    return [estimator.step(scene(step * i)) for i in range(count)]


def track(object_id: int, logits: np.ndarray, state=TrackState.TRACKED, score=0.7) -> Track:
    box = box_of(logits > 0)
    motion = KalmanBox.start(np.zeros(4) if box is None else box)
    return Track(object_id, logits, motion, score, state, True, 0.0)


def tracked(index: int, flow, *tracks: Track, keyframe=False) -> TrackedFrame:
    frame = replace(FRAME, index=index)
    return TrackedFrame(frame, keyframe, flow, tracks)


def center_x(logits: np.ndarray) -> float:
    return float(np.nonzero(logits > 0)[1].mean() + 0.5)


def test_reversed_flow_carries_back():
    flow = flows(2, step=4)[1]
    assert flow is not None
    back = flow.reverse().warp(disc(64))
    assert pairwise_mask_iou((back > 0)[None], (disc(60) > 0)[None])[0, 0] > 0.95
    again = flow.reverse().reverse().warp(disc(60))
    assert np.array_equal(again, flow.warp(disc(60)))


def test_a_mask_lies_between_what_both_keyframes_say_and_nearer_to_the_nearer():
    """The scene moves 2 pixels a frame; what was carried is left behind by 6."""
    flow = flows(5)
    between = [tracked(i, flow[i], track(1, disc(40 + 2 * i))) for i in range(1, 4)]
    done = blend_between_keyframes(between, tracked(4, flow[4], track(1, disc(54)), keyframe=True))
    assert [t.frame.index for t in done] == [1, 2, 3]
    moved = []
    for before, after in zip(between, done, strict=True):
        share, stayed = after.frame.index / 4, before.tracks[0].logits
        later = disc(46 + 2 * after.frame.index)
        near = slice(20, 52), slice(44, 60)
        expected = (1 - share) * stayed[near] + share * later[near]
        assert np.abs(after.tracks[0].logits[near] - expected).max() < 0.6
        moved.append(center_x(after.tracks[0].logits) - center_x(stayed))
    assert moved == pytest.approx([1.5, 3, 4.5], abs=0.4)
    assert [center_x(t.tracks[0].logits) for t in between] == pytest.approx([42, 44, 46], abs=0.2)


@pytest.mark.parametrize(("alike", "moved"), [(True, -7), (False, -2)])
def test_an_object_goes_back_the_way_it_came_if_it_is_the_same(alike, moved):
    """Its track says 7 pixels, the picture 2: believed where the masks are alike."""
    flow = flows(4)
    came = np.array([[1, 0, 7], [0, 1, 0]], np.float64)
    between = [tracked(1, flow[1], track(1, disc(50)))]
    seen = replace(track(1, disc(64 if alike else 50)), rigid_motion=came)
    between.append(tracked(2, flow[2], seen))
    first, _ = blend_between_keyframes(
        between, tracked(3, flow[3], track(1, disc(66)), keyframe=True)
    )
    blended = 2 / 3 * disc(50) + 1 / 3 * disc(64 + moved)
    near = slice(20, 52), slice(48, 66)
    assert np.abs(first.tracks[0].logits[near] - blended[near]).mean() < 0.2


def test_nothing_is_blended_across_a_cut():
    flow = flows(4)
    between = [tracked(i, flow[i], track(1, disc(40))) for i in (1, 2)]
    done = blend_between_keyframes(between, tracked(3, None, track(1, disc(60)), keyframe=True))
    assert [t.tracks[0] for t in done] == [t.tracks[0] for t in between]


@pytest.mark.parametrize("later", [[], [TrackState.OCCLUDED], [TrackState.LOST]])
def test_what_the_keyframe_does_not_show_stays_as_it_is(later):
    flow = flows(3)
    between = [tracked(1, flow[1], track(1, disc(40)), track(2, disc(80)))]
    seen = [track(1, disc(60), state) for state in later]
    (done,) = blend_between_keyframes(
        between, tracked(2, flow[2], *seen, track(2, disc(90)), keyframe=True)
    )
    assert done.tracks[0] is between[0].tracks[0]
    assert center_x(done.tracks[1].logits) > 81


@pytest.mark.parametrize("hidden", [TrackState.OCCLUDED, TrackState.LOST])
def test_what_is_found_again_is_shown_as_far_as_it_can_be_carried_back(hidden):
    flow = flows(3)
    between = [tracked(1, flow[1], track(1, disc(20), hidden), track(2, disc(20), hidden))]
    found, behind = track(1, disc(64), TrackState.REENTERED), track(2, np.full(SHAPE, -1.0))
    (done,) = blend_between_keyframes(between, tracked(2, flow[2], found, behind, keyframe=True))
    shown, kept = done.tracks
    assert (shown.id, shown.state, shown.score) == (1, TrackState.REENTERED, 0.7)
    assert pairwise_mask_iou(shown.mask[None], (disc(62) > 0)[None])[0, 0] > 0.95
    assert kept is between[0].tracks[1]


def test_objects_without_an_id_are_nobody_elses():
    flow = flows(3)
    tentative = TrackState.TENTATIVE
    between = [tracked(1, flow[1], track(0, disc(30), tentative), track(0, disc(90), tentative))]
    key = tracked(2, flow[2], track(0, disc(64), tentative), track(4, disc(90)), keyframe=True)
    (done,) = blend_between_keyframes(between, key)
    assert list(done.tracks) == list(between[0].tracks)


def test_frames_come_out_in_order_and_few_are_held():
    flow = flows(2)[1]
    refiner, out = Refiner(), []
    keys = {0, 1, 4, 9, 10 + 2 * MAX_HELD_FRAMES}
    count = 20 + 2 * MAX_HELD_FRAMES
    for index in range(count):
        done = refiner.put(tracked(index, flow, track(1, disc(40)), keyframe=index in keys))
        out += [t.frame.index for t in done]
        assert index in keys or index - len(out) < MAX_HELD_FRAMES
        assert index not in keys or out[-1] == index
    out += [t.frame.index for t in refiner.rest()]
    assert out == list(range(count))
    assert refiner.rest() == []


# The whole pipeline


def config(*, refine: bool, interval: int = 5, seeded: bool = False) -> PipelineConfig:
    chosen = PipelineConfig(
        keyframes=KeyframeConfig(interval=interval, work=0), seeding=SeedingConfig(enabled=seeded)
    )
    return chosen.model_copy(
        update={"tracking": chosen.tracking.model_copy(update={"refine": refine})}
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two shapes: path and true masks."""
    frames, masks = moving_shapes(COUNT, (180, 320), shapes=2, seed=3)
    return write_video(tmp_path_factory.mktemp("clip") / "shapes.mp4", frames), masks


def box(masks, frame: int, object_id: int) -> dict:
    rows, columns = np.nonzero(masks[frame] == object_id)
    xyxy = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return {"frame": frame, "type": "box", "object": object_id, "xyxy": [float(v) for v in xyxy]}


def log(*events: dict) -> PromptLog:
    return PromptLog.model_validate({"version": 1, "events": list(events)})


def run(path, prompts=NO_PROMPTS, *, backward=None, **options):
    return list(Pipeline(config(**options)).stream(open_source(path), prompts, backward=backward))


def mean_iou(results, masks, object_id: int) -> float:
    found = [(r.labels == object_id, masks[r.index] == object_id) for r in results]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in found]))


def test_only_masks_between_keyframes_change_and_they_get_better(clip):
    path, masks = clip
    prompts = log(box(masks, 0, 1), box(masks, 0, 2))
    plain, both = (run(path, prompts, refine=refine) for refine in (False, True))
    assert [r.index for r in both] == list(range(COUNT))
    last = max(r.index for r in plain if r.keyframe)
    blended = []
    for without, result in zip(plain, both, strict=True):
        assert (result.pts, result.keyframe) == (without.pts, without.keyframe)
        told = [(o.id, o.state, o.score) for o in result.objects]
        assert told == [(o.id, o.state, o.score) for o in without.objects]
        if result.keyframe or result.index > last:
            assert_equal(result, without)
        elif not np.array_equal(result.labels, without.labels):
            blended.append(result.index)
    assert len(blended) > 8


def test_masks_of_what_deforms_get_better():
    scene = next(e for e in generated_clips(SpriteImages()) if e.name == "deformation").load()
    masks = [scene.truth.at(frame) for frame in scene.truth.frames]
    prompts = log(box(masks, 0, 1))
    plain, both = (
        list(Pipeline(config(refine=refine, interval=8)).stream(scene.source, prompts))
        for refine in (False, True)
    )
    assert mean_iou(both, masks, 1) > mean_iou(plain, masks, 1) + 0.01


def test_it_repeats_itself_bit_for_bit(clip):
    path, _ = clip
    for one, other in zip(*(run(path, refine=True, seeded=True) for _ in range(2)), strict=True):
        assert_equal(one, other)


def test_where_every_frame_is_a_keyframe_it_does_nothing(clip):
    path, masks = clip
    prompts = log(box(masks, 0, 1))
    plain, both = (run(path, prompts, refine=refine, interval=1) for refine in (False, True))
    for without, result in zip(plain, both, strict=True):
        assert_equal(result, without)


def test_frames_before_a_cut_are_as_without_it(tmp_path):
    """The cut is on frame 8, between the regular keyframes 5 and 10."""
    first, masks = moving_shapes(8, (180, 320), shapes=1, seed=3)
    then, _ = moving_shapes(10, (180, 320), shapes=1, seed=11)
    path = write_video(tmp_path / "cut.mp4", np.concatenate([first, 255 - then]))
    prompts = log(box(masks, 0, 1))
    plain, both = (run(path, prompts, refine=refine) for refine in (False, True))
    assert plain[8].keyframe
    same = [np.array_equal(a.labels, b.labels) for a, b in zip(plain, both, strict=True)]
    assert same[5:9] == [True] * 4
    assert not all(same[1:5])


def test_with_a_backward_pass_both_directions_are_refined(clip):
    path, masks = clip
    prompts = log(box(masks, 0, 1), box(masks, 17, 2))
    alone = run(path, prompts, refine=True)
    once, twice = (run(path, prompts, refine=True, backward=BackwardPass()) for _ in range(2))
    plain = run(path, prompts, refine=False, backward=BackwardPass())
    for one, other, forward in zip(once, twice, alone, strict=True):
        assert_equal(one, other)
        if one.index >= 17:
            assert_equal(one, forward)
    earlier = zip(once[:17], plain[:17], strict=True)
    assert sum(not np.array_equal(a.labels, b.labels) for a, b in earlier) > 8


def test_frames_held_do_not_grow_with_the_interval():
    given = 0

    def images():
        nonlocal given
        for given in range(1, 201):
            yield np.roll(image, given // 8, axis=1)

    image = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    chosen = config(refine=True, interval=150)
    room = chosen.queue.capacity + chosen.keyframes.lookahead + MAX_HELD_FRAMES + 4
    for seen, _ in enumerate(Pipeline(chosen).stream(ArraySource(images()))):
        assert given <= seen + room
    assert given == 200


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
def test_live_queues_are_refused(policy):
    live = config(refine=True).model_copy(update={"queue": QueueConfig(policy=policy)})
    with pytest.raises(ConfigError, match=f"--refine.*{policy}"):
        Pipeline(live)


# The command line


@pytest.fixture
def asked(clip, tmp_path):
    """Arguments of a run, but for the output."""
    path, masks = clip
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"version": 1, "events": [box(masks, 0, 1), box(masks, 12, 2)]}))
    return ("run", path, "--prompts", prompts, "--quiet", "--refine")


def contents(store) -> dict[str, bytes]:
    """The files of a store but its root, which knows how the run was begun."""
    return {name: data for name, data in files(store).items() if name != "zarr.json"}


@pytest.mark.parametrize("more", [(), ("--backward",)])
def test_an_interrupted_store_is_resumed_bit_for_bit(cli, asked, tmp_path, more):
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    overlay = tmp_path / "o.mp4"
    code, _, err = cli(*asked, *more, "-o", whole, "--overlay", overlay)
    assert code == 0, err
    assert len(open_frames(overlay)) == len(MaskStore(whole)) == COUNT
    interrupt(asked, parts, at=13, backward=bool(more))
    assert 0 < len(MaskStore(parts)) < COUNT
    code, _, err = cli(*asked, *more, "-o", parts, "--resume")
    assert code == 0, err
    assert contents(whole) == contents(parts)


def interrupt(asked, store, *, at: int, backward: bool) -> None:
    """Run as the command line does until a frame between two keyframes has been done."""
    prompts = load_prompts(asked[3])
    pipeline = Pipeline(load_config(None, ["tracking.refine=true", "seeding.enabled=false"]))
    span = {"start": None, "end": None, "stride": 1, "refine": True}
    span |= {"backward": True} if backward else {}
    outputs = RunOutputs(store, span=span, prompts=prompts)

    def stop(result) -> None:
        if result.index == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(
            open_source(asked[1]),
            lambda info: outputs.open(pipeline, info),
            prompts,
            on_frame=stop,
            backward=BackwardPass() if backward else None,
        )


def open_frames(path) -> list[Frame]:
    with open_source(path).open() as reader:
        return list(reader)


def test_resuming_otherwise_than_begun_is_refused(cli, asked, tmp_path):
    store = tmp_path / "o.zarr"
    assert cli(*asked, "-o", store)[0] == 0
    code, _, err = cli(*asked, "--no-refine", "-o", store, "--resume")
    assert (code, "refine" in err) == (1, True), err
    assert cli(*asked, "-o", store, "--resume")[0] == 0
    assert len(MaskStore(store)) == COUNT


def test_the_option_overrides_the_configuration(cli, asked, tmp_path):
    stores = [tmp_path / f"{name}.zarr" for name in ("by-option", "by-key", "off")]
    choices = [("--refine",), ("--set", "tracking.refine=true"), ("--no-refine",)]
    for store, choice in zip(stores, choices, strict=True):
        assert cli(*asked[:-1], *choice, "-o", store)[0] == 0
    by_option, by_key, off = map(contents, stores)
    assert by_option == by_key != off
    assert MaskStore(stores[1]).span["refine"] is True
    assert "refine" not in MaskStore(stores[2]).span
    code, _, err = cli(*asked, "--set", "queue.policy=latest", "-o", tmp_path / "live.zarr")
    assert (code, "queue.policy" in err) == (1, True)
