"""Live runs on streams that break: restarts, stalls, damage, other sizes, clocks that jump."""

import threading

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.lab.bench.loopback import LoopbackCamera
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.session import LiveSession
from tests.support.live_runs import PATIENT, RATE, SIZE, run_until
from tests.support.media import moving_shapes


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(60, SIZE, shapes=2, seed=1)


@pytest.fixture
def camera(shapes):
    with LoopbackCamera(to_and_fro(shapes[0]), RATE) as camera:
        yield camera


def to_and_fro(frames):
    """What moves a little about where it was, so that it is there after a gap, too."""
    return [*frames[:12], *frames[10:0:-1]]


def test_a_camera_that_was_away_and_has_another_size_now_leaves_a_gap_and_the_same_ids(
    shapes, camera
):
    session = LiveSession.open(camera.url, load_config(overrides=PATIENT))
    state = {"seen": 0, "gap": 0, "before": set()}
    larger = np.repeat(np.repeat(shapes[0], 2, 1), 2, 2)
    over, cameras, port = threading.Event(), [], camera.port

    def be_away():
        camera.close()
        while "cannot be opened" not in session.status().source["trouble"]:
            over.wait(0.02)
        cameras.append(LoopbackCamera(to_and_fro(larger), RATE, port))

    away = threading.Thread(target=be_away)

    def found_again(live):
        shown = {o.id for o in live.result.objects if o.area}
        if live.frame.arrival.gap_s:
            state["gap"] = live.frame.index
        if not state["before"]:
            state["seen"] += len(shown) >= 1
            if state["seen"] > 20:
                state["before"] = shown
                away.start()
            return False
        return state["gap"] and shown & state["before"]

    taken, summary = run_until(session, found_again)
    away.join()
    for new in cameras:
        new.close()
    assert (summary.source["connections"], summary.source["gaps"]) == (2, 1)
    assert taken[-1].result.labels.shape == SIZE


def test_a_stalled_and_a_corrupt_stream_and_a_clock_that_jumps(camera):
    settings = [*PATIENT, "live.stall_s=0.7", "seeding.enabled=false"]
    session = LiveSession.open(camera.url, load_config(overrides=settings))
    troubles = iter([("corrupt", 15), ("jump_s", 3600.0), ("pause_s", 2.0)])
    state = {"next": 10}

    def after_all(live):
        if live.frame.index < state["next"]:
            return False
        state["next"] = live.frame.index + 20
        trouble = next(troubles, None)
        if trouble is not None:
            setattr(camera, *trouble)
        return trouble is None

    taken, summary = run_until(session, after_all)
    indices = [live.frame.index for live in taken]
    assert indices == sorted(set(indices))
    assert summary.source["gaps"] >= 1
    assert max(live.frame.pts_s for live in taken) > 3600


def test_ten_seconds_of_corrupt_packets_end_nothing(shapes):
    """300 of 30 a second, of which the decoder makes some; what was clicked is found again."""
    still, truth = shapes[0][0], shapes[1][0] == 2
    rows, columns = np.nonzero(truth)
    box = Command(type="box", xyxy=(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    noise = np.random.default_rng(0).integers(0, 16, (30, *still.shape), np.uint8)
    with LoopbackCamera(still // 17 * 16 + noise, RATE, speed=10) as camera:
        settings = [*PATIENT, "seeding.enabled=false"]
        session = LiveSession.open(camera.url, load_config(overrides=settings))
        state = {"seen": 0, "damaged": False, "again": 0}

        def found_again(live):
            if live.frame.index == 0:
                session.command(box)
            mask = live.result.labels > 0
            found = (mask & truth).sum() > 0.7 * (mask | truth).sum()
            state["seen"] += found
            if state["seen"] == 10 and not state["damaged"]:
                state["damaged"], camera.corrupt = True, 300
            state["again"] += found and state["damaged"] and not camera.corrupt
            return state["again"] == 10

        _, summary = run_until(session, found_again)
    assert summary.source["corrupt_packets"] > 100
    assert summary.source["connections"] == 1
