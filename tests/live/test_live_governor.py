"""The governor: the order of its steps, when it takes them, and when it goes back."""

import threading
from itertools import count

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.encoder_inputs import EncoderInputs
from maskstream.pipeline.live.governor import Governor, budget_steps
from maskstream.pipeline.live.latency import LatencyHistogram
from maskstream.pipeline.live.session import CallbackSink, LiveSession
from maskstream.pipeline.live.status import Watchdog
from tests.support.clock import FakeClock
from tests.support.live_runs import AtOnce
from tests.support.media import moving_shapes

CONFIG = load_config(overrides=["live.interval_max=16"])


def feed(governor, latency_ms, seconds, *, start=0.0, drops_a_second=0, fps=20):
    """Results of one latency for a while; gives the time after them."""
    first = round(start * fps)
    for number in range(first, first + round(seconds * fps)):
        now_s = number / fps
        governor.observe(latency_ms / 1000, int(now_s * drops_a_second), now_s)
    return start + seconds


def test_the_ladder_saves_keyframes_then_input_then_prompts_then_tracks():
    steps = budget_steps(CONFIG)
    assert [s.interval for s in steps[:3]] == [8, 12, 16]
    told = [
        (s.input_share, s.prompts, s.tracks_per_keyframe < 100 and s.tracks_per_keyframe)
        for s in steps[2:]
    ]
    assert told == [
        (1.0, 16, False),
        (0.75, 16, False),
        (0.75, 8, False),
        (0.75, 0, False),
        (0.75, 0, 4),
        (0.75, 0, 2),
        (0.75, 0, 1),
    ]


@pytest.mark.parametrize(
    ("latency_ms", "drops_a_second", "level", "says"),
    [
        (60, 0, 0, "within the deadline"),
        (99, 0, 0, "within the deadline"),
        (130, 0, 3, "p95 130 ms of 100"),
        (30, 15, 3, "of the frames dropped"),
    ],
)
def test_it_takes_a_step_a_second_while_results_are_late_or_lost(
    latency_ms, drops_a_second, level, says
):
    governor = Governor(budget_steps(CONFIG), 0.1)
    feed(governor, latency_ms, 3.6, drops_a_second=drops_a_second)
    assert governor.state.level == level
    assert says in governor.state.reason


def test_the_last_step_says_that_nothing_is_left():
    governor = Governor(budget_steps(CONFIG), 0.1)
    feed(governor, 300, 30)
    assert governor.state.level == governor.state.levels
    assert "nothing more to save" in governor.state.reason


def test_it_goes_back_when_there_is_time_to_spare_and_waits_longer_after_a_relapse():
    governor = Governor(budget_steps(CONFIG), 0.1)
    now = feed(governor, 130, 2.05)
    assert governor.state.level == 2
    now = feed(governor, 80, 30, start=now)
    assert governor.state.level == 2  # neither late nor with time to spare
    now = feed(governor, 30, 7.5, start=now)
    assert governor.state.level == 1
    assert "time to spare: a keyframe every 12 frames" in governor.state.reason
    now = feed(governor, 130, 2.05, start=now)
    now = feed(governor, 30, 1.5, start=now)
    relapsed = governor.state.level
    assert relapsed > 1
    now = feed(governor, 30, 7.5, start=now)
    assert governor.state.level == relapsed  # twice as patient now
    feed(governor, 30, 7, start=now)
    assert governor.state.level == relapsed - 1
    assert len(governor.history) >= 5


class StillClock(FakeClock):
    """One that nobody moves on by waiting."""

    def wait(self, event, timeout_s):
        return event.wait()


def test_a_slow_model_is_asked_for_less_step_by_step_and_for_all_again_when_it_is_fast(
    monkeypatch,
):
    """A whole live run on a clock that a frame moves on by its share of what keyframes cost."""
    monkeypatch.setattr("maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor", AtOnce)
    frames, truth = moving_shapes(60, (54, 96), shapes=1, seed=1)
    settings = ["live.interval_max=12", "threads.inference=1", "seeding.prompts_per_keyframe=2"]
    config = load_config(overrides=[*settings, "live.latency_ms=100", "live.prompts_first=0"])
    clock, taken = StillClock(), threading.Semaphore(1)
    state = {"slow": 2.0, "followed": 0, "over": False}
    told = []

    def come():
        for index in count():
            taken.acquire(timeout=30)
            if state["over"]:
                return
            clock.now += 0.1
            yield frames[index % 60]

    def costs_s(budget):
        keyframe_s = (
            budget.input_share**2 + 0.1 * budget.prompts + 0.01 * min(5, budget.tracks_per_keyframe)
        )
        return 0.02 + state["slow"] * keyframe_s / budget.interval

    def compute(live):
        governor = session.governor.state
        clock.now += costs_s(governor.budget)
        if not told or told[-1].level != governor.level:
            told.append(governor)
        state["followed"] += governor.level == governor.levels and bool(live.result.objects)
        if live.frame.index == 0:
            rows, columns = np.nonzero(truth[0])
            session.command(Command(type="point", xy=(columns.mean(), rows.mean())))
        if "nothing more to save" in governor.reason and state["followed"] > 20:
            state["slow"] = 0.1
        recovered = state["slow"] < 1 and governor.level == 0
        state["over"] = recovered or live.frame.index > 2000

    def next_one(live):  # when the time of this one has been taken
        taken.release()

    session = LiveSession.open(come(), config, clock=clock)
    summary = session.run(
        lambda info: [CallbackSink(compute)], behind=lambda info: [CallbackSink(next_one)]
    )
    steps = budget_steps(session.pipeline.config)
    assert [state.budget for state in told] == [*steps, *steps[-2::-1]]
    down = [state.reason.partition(": ")[2] for state in told[1 : len(steps)]]
    assert down == [
        "a keyframe every 12 frames",
        "encoder input x 0.75",
        "1 seeding prompts a keyframe",
        "0 seeding prompts a keyframe",
        "4 tracks updated a keyframe",
        "2 tracks updated a keyframe",
        "1 tracks updated a keyframe",
    ]
    assert all("p95" in state.reason and "ms of 100" in state.reason for state in told[1:8])
    assert all("time to spare" in state.reason for state in told[8:])
    assert summary.to_json()["governor"]["reason"] == told[-1].reason


def test_a_smaller_input_is_loaded_beside_the_stream_and_once():
    loading, loaded = threading.Event(), []

    def load(share):
        assert loading.wait(30)
        loaded.append(share)
        return ("small",)

    inputs = EncoderInputs(("full",), load)
    assert [inputs.at(share) for share in (1.0, 0.75, 0.75)] == [("full",)] * 3
    loading.set()
    inputs.close()
    assert [inputs.at(share) for share in (0.75, 1.0, 0.75)] == [("small",), ("full",), ("small",)]
    assert loaded == [0.75]


def test_few_results_are_not_judged():
    governor = Governor(budget_steps(CONFIG), 0.1)
    now = feed(governor, 900, 3, fps=1)
    assert (governor.state.level, governor.state.reason) == (0, "900 ms of 100, few results")
    feed(governor, 20, 3, start=now, fps=1)
    assert governor.state.reason == "within the deadline"


@pytest.mark.parametrize(
    ("behind_s", "reason"), [(0.09, "within the deadline"), (15.8, "results are 15.8 s behind")]
)
def test_results_that_are_old_are_never_within_the_deadline(behind_s, reason):
    governor = Governor(budget_steps(CONFIG), 0.1)
    feed(governor, 30, 5)
    assert governor.state_at(behind_s).reason == reason


def test_decoding_is_spared_when_there_is_nothing_else_to_save():
    governor = Governor(budget_steps(CONFIG), 0.1)
    now = feed(governor, 30, 5, drops_a_second=15)
    assert not governor.spares_decoding
    now = feed(governor, 30, 10, start=now, drops_a_second=15)
    assert governor.spares_decoding
    feed(governor, 30, 3, start=now)
    assert not governor.spares_decoding


@pytest.mark.parametrize(
    ("latencies_ms", "expected"),
    [
        ([], (0, 0, 0)),
        ([10.2], (10.5, 10.5, 10.5)),
        (list(range(1, 101)), (50.5, 95.5, 99.5)),
        ([15_800], (15_800.5, 15_800.5, 15_800.5)),
        ([600_000], (60_000, 60_000, 60_000)),
    ],
)
def test_the_histogram_gives_percentiles(latencies_ms, expected):
    histogram = LatencyHistogram()
    for latency in latencies_ms:
        histogram.add(latency / 1000)
    assert tuple(histogram.to_json().values()) == expected


def test_the_watchdog_names_what_hangs(caplog):
    stages = {"read": 0.1, "encode": 7.0}
    watchdog = Watchdog(lambda: stages, 5.0)
    assert watchdog.hanging() == watchdog.hanging() == {"encode": 7.0}
    assert caplog.text.count("'encode' hangs") == 1
    stages.clear()
    assert watchdog.hanging() == {}
