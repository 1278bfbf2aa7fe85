"""The governor: the order of its steps, when it takes them, and when it goes back."""

import pytest

from pipeline.config import load_config
from pipeline.live.governor import Governor, ladder
from pipeline.live.latency import LatencyHistogram
from pipeline.live.status import Watchdog

CONFIG = load_config(overrides=["live.interval_max=16"])


def feed(governor, latency_ms, seconds, *, start=0.0, drops_a_second=0, fps=20):
    """Results of one latency for a while; gives the time after them."""
    first = round(start * fps)
    for number in range(first, first + round(seconds * fps)):
        now_s = number / fps
        governor.observe(latency_ms / 1000, int(now_s * drops_a_second), now_s)
    return start + seconds


def test_the_ladder_saves_keyframes_then_input_then_prompts_then_tracks():
    steps = ladder(CONFIG)
    assert [s.interval for s in steps[:3]] == [8, 12, 16]
    told = [(s.input_share, s.prompts, s.refreshed < 100 and s.refreshed) for s in steps[2:]]
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
    governor = Governor(ladder(CONFIG), 0.1)
    feed(governor, latency_ms, 3.6, drops_a_second=drops_a_second)
    assert governor.state.level == level
    assert says in governor.state.reason


def test_the_last_step_says_that_nothing_is_left():
    governor = Governor(ladder(CONFIG), 0.1)
    feed(governor, 300, 30)
    assert governor.state.level == governor.state.levels
    assert "nothing more to save" in governor.state.reason


def test_it_goes_back_when_there_is_time_to_spare_and_waits_longer_after_a_relapse():
    governor = Governor(ladder(CONFIG), 0.1)
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


def test_few_results_are_not_judged():
    governor = Governor(ladder(CONFIG), 0.1)
    feed(governor, 900, 5, fps=1)
    assert governor.state.level == 0


@pytest.mark.parametrize(
    ("latencies_ms", "expected"),
    [
        ([], (0, 0, 0)),
        ([10.2], (10.5, 10.5, 10.5)),
        (list(range(1, 101)), (50.5, 95.5, 99.5)),
        ([60_000], (10_000, 10_000, 10_000)),
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
