"""The benches of live runs: ages of results by stream and cores, and the soak's samples."""

import os
from multiprocessing import Pipe

import pytest

from maskstream.pipeline.cli.bench_report import print_ages
from maskstream.pipeline.config import load_config
from maskstream.pipeline.lab.bench import live_ages
from maskstream.pipeline.lab.bench.loopback import LoopbackCamera
from tests.support.live_runs import PATIENT
from tests.support.media import moving_shapes


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_a_run_is_pinned_to_its_cores_and_the_bench_is_not():
    usable = os.sched_getaffinity(0)
    with live_ages.pinned(1):
        assert os.sched_getaffinity(0) == {min(usable)}
    assert os.sched_getaffinity(0) == usable


def test_ages_of_results_are_measured_from_their_sending(monkeypatch, capsys):
    monkeypatch.setattr(live_ages, "_WARM_UP_S", 0.1)
    config = load_config(overrides=[*PATIENT, "seeding.enabled=false"])
    shapes, _ = moving_shapes(20, (54, 96))
    here, there = Pipe()
    with LoopbackCamera(shapes, live_ages.RATE) as camera:
        live_ages._run(there, config, camera.url, "tiny", 1, 0.7, 0.005)
    row = here.recv()
    assert (row.stream, row.cores) == ("tiny", 1)
    assert row.fps > 0
    assert 0 < row.p50_ms <= row.p95_ms
    assert row.p50_ms <= row.age_p50_ms <= row.age_p95_ms  # the way to here comes on top
    print_ages([row])
    header, _, line = capsys.readouterr().out.splitlines()
    assert header.count("|") == line.count("|") == 10
    assert line.startswith("| tiny | 1 | ")
