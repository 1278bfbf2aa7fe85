"""Gaps of live sources: which pauses are gaps, and that each one reaches whoever needs it."""

import threading
from dataclasses import replace
from itertools import count

import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.live.gaps import GapFinder
from maskstream.pipeline.live.live_store import LiveStore
from maskstream.pipeline.live.session import CallbackSink, LiveSession
from maskstream.pipeline.sources.packet_feed import CatchUp
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import Arrival
from tests.live.test_live_catch_up import B_FRAMES, LateDecoder
from tests.live.test_live_governor import StillClock
from tests.live.test_live_sources import reconnecting
from tests.live.test_live_store import frames_at, opener
from tests.support.live_runs import PATIENT, AtOnce
from tests.support.media import moving_shapes, write_video


@pytest.mark.parametrize(
    ("intervals_s", "gaps"),
    [
        pytest.param([1 / 0.4] * 20, [], id="0.4-fps"),
        pytest.param([1.0, 1.3, 0.9, 1.6, 1.0], [], id="1-fps-with-jitter"),
        pytest.param([0.04, 0.04, 0.9, 0.04], [], id="25-fps-shorter-than-gap_s"),
        pytest.param([0.04, 0.04, 1.1, 0.04], [2], id="25-fps"),
        pytest.param([2.5, 2.5, 7.0, 2.5, 8.0], [4], id="0.4-fps-with-a-gap"),
        pytest.param([0.04] * 9 + [2.0] * 20, [9, 10, 11, 12, 13], id="slower-at-night"),
        pytest.param([2.0] * 9 + [0.04] * 9 + [2.0], [18], id="faster-by-day"),
    ],
)
def test_a_gap_is_much_longer_than_the_usual_interval(intervals_s, gaps):
    finder = GapFinder(1.0)
    assert [n for n, interval in enumerate(intervals_s) if finder.is_gap(interval)] == gaps


def test_a_source_with_a_low_frame_rate_has_no_gaps():
    _, source, _ = reconnecting([2.5] * 12)
    with source.open() as reader:
        frames = list(reader)
    assert [frame.arrival.gap_s for frame in frames] == [0.0] * 12
    assert source.gaps == 0


def test_frames_that_were_skipped_are_the_reason_of_a_gap(tmp_path):
    shapes, _ = moving_shapes(30, (36, 64))
    clip = write_video(tmp_path / "b.ts", shapes, options=B_FRAMES)
    stream = LiveStream(str(clip), clock=LateDecoder(0.1), catch_up=CatchUp(0.15, 2.0))
    _, source, _ = reconnecting([0.1])
    source._source, source._reopenable = stream, False
    arrival = source._after_gap(Arrival(1.0, 2.0), 4.0, 12)
    assert (arrival.gap_s, arrival.gap_reason) == (4.0, "12 frames were skipped to catch up")
    with source.open() as reader:
        shown = len(list(reader))
    assert shown + source.skipped == 30  # also when the connection is closed


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.DROP_OLDEST])
def test_the_gap_before_a_frame_that_is_dropped_goes_to_the_next(policy):
    given = [frame for frame, _ in frames_at(0.0, (4.0, 4.0, 1), (9.0, 5.0, 2), 9.1, 9.2)]
    given[3] = replace(given[3], jump_s=-1.0)
    queue = FrameQueue(1, policy, carry=lambda dropped, after: after.after(dropped))
    for frame in given:
        queue.put(frame)
    queue.close()
    (last,) = queue
    assert (last.index, last.arrival.gap_s, last.jump_s) == (4, 9.0, -1.0)
    assert last.arrival.gap_reason == "the cable was pulled"
    assert last.arrival.unix_s == given[4].arrival.unix_s


def test_a_gap_whose_frame_is_dropped_reaches_store_metrics_and_recognition(tmp_path, monkeypatch):
    """The frame after the gap and the two after that come while frame 4 is being processed."""
    monkeypatch.setattr("maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor", AtOnce)
    shapes, _ = moving_shapes(8, (54, 96), shapes=1)
    settings = ["seeding.enabled=false", "keyframes.interval=300", "live.latency_ms=150"]
    config = load_config(overrides=[*PATIENT, *settings])
    clock, taken = StillClock(), threading.Semaphore(0)
    processing, all_came = threading.Event(), threading.Event()

    def come():
        for number, rgb in enumerate(shapes):
            if number == 5:
                assert processing.wait(30)
                clock.now += 20.0
            clock.now += 0.1
            yield rgb
            if number < 4:
                assert taken.acquire(timeout=30)
        all_came.set()

    session = LiveSession.open(come(), config, clock=clock)
    take_commands, calls, meanwhile = session.take_commands, count(), []

    def take_commands_when_all_came():
        if next(calls) == 4:  # for every frame
            processing.set()
            assert all_came.wait(30)
            meanwhile.append(session.status())
        return take_commands()

    session.take_commands = take_commands_when_all_came
    path, results = tmp_path / "a.zarr", []

    def take(live):
        results.append(live.result)
        taken.release()

    def behind(info):
        store = LiveStore(MaskStoreWriter(path, info=info, attributes={}))
        return [store, CallbackSink(take)]

    status = session.run(behind=behind)
    assert [result.index for result in results] == [0, 1, 2, 3, 4, 7]
    gaps = [event for event in MaskStore(path).events if event["type"] == "gap"]
    assert [(gap["frame"], gap["after"], round(gap["seconds"], 2)) for gap in gaps] == [
        (7, 4, 20.1)
    ]
    (told,) = meanwhile
    assert told.behind_s == pytest.approx(20.4)
    assert told.governor.reason == "results are 20.4 s behind"
    assert status.behind_s == 0
    assert status.source["gaps"] == 1  # which the metrics tell
    assert [result.index for result in results if result.keyframe] == [0, 7]  # recognized anew


def test_events_of_a_store_are_bounded_and_later_gaps_are_summed_up(tmp_path, monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.gaps.MAX_EVENTS", 7)
    sink = LiveStore(opener()(tmp_path / "a.zarr"))
    arrivals = [0.0, *((10.0 * number, 9.0, number) for number in range(1, 41))]
    for frame, result in frames_at(*arrivals):
        sink.write(frame, result)
    sink.close(complete=True)
    events = MaskStore(tmp_path / "a.zarr").events
    assert [event["type"] for event in events[:7]] == ["clock", *["gap", "clock"] * 3]
    assert events[7:] == [
        {"type": "gaps", "since": 4, "frame": frame, "count": count, "seconds": 9.0 * count}
        for frame, count in ((4, 1), (5, 2), (7, 4), (11, 8), (19, 16), (35, 32), (40, 37))
    ]
