"""The whole way of a frame with the embedded model, on generated clips whose truth is known."""

import subprocess
import sys
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipeline.config import KeyframeConfig, PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import PromptError, SourceNotFoundError, StoreError
from maskstream.pipeline.prompts import NO_PROMPTS, PromptLog
from maskstream.pipeline.sources import ArraySource, FrameRange, VideoFile, open_source
from maskstream.pipeline.types import Frame, FrameResult, SourceInfo
from tests.support.media import moving_shapes, write_video

UNSEEDED = PipelineConfig(seeding=SeedingConfig(enabled=False))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two shapes moving for 24 frames: path, frames and true masks."""
    frames, masks = moving_shapes(24, (180, 320), shapes=2, seed=3)
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    write_video(path, frames)
    return path, frames, masks


def boxes_on_first_frame(masks) -> PromptLog:
    events = []
    for object_id in (1, 2):
        rows, columns = np.nonzero(masks[0] == object_id)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        box = [float(v) for v in box]
        events.append({"frame": 0, "type": "box", "object": object_id, "xyxy": box})
    return PromptLog.model_validate({"version": 1, "events": events})


class Collect:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.results: list[FrameResult] = []
        self.threads: set[str] = set()
        self.complete: bool | None = None

    def write(self, frame: Frame, result: FrameResult) -> None:
        self.results.append(result)
        self.threads.add(threading.current_thread().name)

    def idle(self) -> None:
        pass

    def close(self, *, complete: bool) -> None:
        assert self.complete is None
        self.complete = complete


def collected(source, prompts, config=UNSEEDED) -> Collect:
    sink = Collect()
    Pipeline(config).run(source, lambda info: [sink], prompts)
    return sink


def test_boxed_objects_are_followed_with_their_masks_and_ids(clip):
    path, frames, masks = clip
    sink = collected(open_source(path), boxes_on_first_frame(masks))
    assert [r.index for r in sink.results] == list(range(len(frames)))
    assert sink.complete
    assert sink.threads == {"maskstream-writer"}
    for object_id in (1, 2):
        ious = [
            (np.logical_and(r.labels == object_id, m == object_id).sum())
            / np.logical_or(r.labels == object_id, m == object_id).sum()
            for r, m in zip(sink.results, masks, strict=True)
        ]
        assert np.mean(ious) > 0.6, f"object {object_id}: {np.round(ious, 2)}"


def test_a_run_repeats_bit_for_bit(clip):
    path, _, masks = clip
    first, second = (collected(open_source(path), boxes_on_first_frame(masks)) for _ in range(2))
    for a, b in zip(first.results, second.results, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert a.objects == b.objects


def test_encoding_ahead_changes_nothing(clip):
    path, _, masks = clip
    prompts = boxes_on_first_frame(masks)
    at_once = PipelineConfig(
        seeding=SeedingConfig(enabled=False), keyframes=KeyframeConfig(lookahead=0)
    )
    ahead = collected(VideoFile(path), prompts).results
    for one, other in zip(ahead, collected(VideoFile(path), prompts, at_once).results, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert (one.index, one.keyframe, one.objects) == (
            other.index,
            other.keyframe,
            other.objects,
        )


def test_regular_keyframes_come_at_the_interval_whatever_else_happens(clip):
    path, _, masks = clip
    found = collected(VideoFile(path), boxes_on_first_frame(masks)).results
    assert {r.index for r in found if r.keyframe} >= set(range(0, 24, 8))


def test_removed_object_is_gone_from_that_frame_on(clip):
    path, _, masks = clip
    log = boxes_on_first_frame(masks)
    remove = {"frame": 10, "type": "remove", "object": 1}
    log = PromptLog.model_validate(
        log.model_dump() | {"events": [*log.model_dump()["events"], remove]}
    )
    sink = collected(open_source(path), log)
    with_one = [r.index for r in sink.results if any(o.id == 1 for o in r.objects)]
    assert with_one == list(range(10))


def test_stream_yields_results_and_stops_early_without_leaving_threads(clip):
    path, _, masks = clip
    before = threading.active_count()
    with closing(Pipeline(UNSEEDED).stream(open_source(path), boxes_on_first_frame(masks))) as s:
        result = next(s)
    assert result.labels.shape == (180, 320)
    assert result.labels.dtype == np.uint16
    assert {o.id for o in result.objects} == {1, 2}
    assert threading.active_count() == before


@pytest.mark.parametrize("size_hw", [(1, 1), (35, 53), (64, 8)])
@pytest.mark.slow
def test_any_size_runs(size_hw):
    frames = np.random.default_rng(0).integers(0, 255, (7, *size_hw, 3), dtype=np.uint8)
    results = list(Pipeline(PipelineConfig()).stream(ArraySource(list(frames))))
    assert [r.labels.shape for r in results] == [size_hw] * 7


def prompts_on(*frames: int) -> PromptLog:
    events = [{"frame": f, "type": "point", "object": 1, "xy": [5, 5]} for f in frames]
    return PromptLog.model_validate({"version": 1, "events": events})


@pytest.mark.parametrize(
    ("options", "frame", "nearest"),
    [
        ({}, 99, "nearest: 23"),
        ({"start": "10"}, 3, "nearest: 10"),
        ({"end": "20"}, 20, "nearest: 19"),
        ({"start": "1", "stride": 3}, 12, "nearest: 10 and 13"),
        ({"stride": 7}, 22, "nearest: 21"),
    ],
)
def test_a_prompt_on_a_frame_that_is_not_run_is_an_error_before_the_run(
    clip, options, frame, nearest
):
    path, _, masks = clip
    assert len(masks) == 24
    opened = []
    with pytest.raises(PromptError, match=f"frame {frame}, .*{nearest}"):
        Pipeline(UNSEEDED).run(open_source(path, **options), opened.append, prompts_on(frame))
    assert opened == []


def test_a_prompt_beyond_an_unknown_end_keeps_the_results(clip):
    _, frames, masks = clip
    sink = Collect()
    source = ArraySource(iter(frames))  # how many there are shows at the end
    with pytest.raises(PromptError, match="frame 99"):
        Pipeline(UNSEEDED).run(source, lambda info: [sink], prompts_on(99))
    assert len(sink.results) == len(masks)
    assert sink.complete is False


def test_a_run_stops_where_a_prompt_was_left_out(clip):
    _, frames, _ = clip
    source = ArraySource(iter(frames), Fraction(24), FrameRange.of("0.25s"))
    sink = Collect()
    with pytest.raises(PromptError, match="stopped after 2 frames"):
        Pipeline(UNSEEDED).run(source, lambda info: [sink], prompts_on(3))
    assert [r.index for r in sink.results] == [6, 7]


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"frame": 0, "type": "point", "object": 1, "xy": [900, 5]}, "outside the image"),
        ({"frame": 0, "type": "point", "object": 1, "xy": [5, 5], "label": 0}, "positive point"),
    ],
)
def test_impossible_prompts_are_refused(clip, event, says):
    log = PromptLog.model_validate({"version": 1, "events": [event]})
    with pytest.raises(PromptError, match=says):
        collected(open_source(clip[0]), log)


class BrokenSink(Collect):
    """Fails at the third frame, as a full disk would."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        super().write(frame, result)
        if len(self.results) == 3:
            raise StoreError("disk full")


def test_a_failing_sink_stops_the_run_and_the_others_are_closed(clip):
    broken, other = BrokenSink(), Collect()
    with pytest.raises(StoreError, match="disk full"):
        Pipeline(UNSEEDED).run(open_source(clip[0]), lambda info: [other, broken])
    assert other.complete is False
    assert len(other.results) == 3


def test_sinks_are_told_while_a_source_stalls(clip):
    _, frames, _ = clip
    told = threading.Event()

    class Waits(Collect):
        def idle(self) -> None:
            told.set()

    def stalling():
        yield from frames[:2]
        assert told.wait(timeout=60)
        yield from frames[2:4]

    sink = Waits()
    Pipeline(UNSEEDED).run(ArraySource(stalling()), lambda info: [sink])
    assert len(sink.results) == 4


def test_a_failing_source_is_raised_as_it_is():
    with pytest.raises(SourceNotFoundError):
        collected(VideoFile(Path("/nowhere.mp4")), NO_PROMPTS)


def test_sinks_that_cannot_be_made_stop_the_run(clip):
    def refuse(info: SourceInfo):
        raise StoreError("exists")

    with pytest.raises(StoreError, match="exists"):
        Pipeline(UNSEEDED).run(open_source(clip[0]), refuse)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_video():
    """Resident memory after 300 frames, when it has settled, and after 900, in its own process."""
    ran = subprocess.run(
        [sys.executable, "-c", _LONG_RUN], capture_output=True, text=True, check=True
    )
    early, late = map(float, ran.stdout.split())
    assert late - early < 10


_LONG_RUN = """
import numpy as np
from maskstream.pipeline.config import KeyframeConfig, PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.sources import ArraySource
from tests.engine.test_pipeline import resident_mb

frame = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
config = PipelineConfig(keyframes=KeyframeConfig(interval=20), seeding=SeedingConfig(enabled=False))
box = {"frame": 0, "type": "box", "object": 1, "xyxy": [20, 20, 90, 70]}
prompts = PromptLog.model_validate({"version": 1, "events": [box]})
source = ArraySource(np.roll(frame, shift, axis=1) for shift in range(900))
for result in Pipeline(config).stream(source, prompts):
    if result.index in (300, 899):
        print(resident_mb())
"""


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
