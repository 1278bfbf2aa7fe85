"""`bench live --table`: latency and age of live results by size of the stream and cores."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.lab.bench.loopback import camera_process
from maskstream.pipeline.live.session import CallbackSink, LiveResult, LiveSession
from maskstream.pipeline.types import SizeHW

STREAMS: Mapping[str, SizeHW] = {
    "720p30": (720, 1280),
    "1080p30": (1080, 1920),
    "4K30": (2160, 3840),
}
RATE = 30
CORES = (2, 1)
_WARM_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class AgeRow:
    """Results of one stream on some cores.

    p50_ms, p95_ms: latency, from the arrival of a frame to its result. age_p50_ms, age_p95_ms: from
    its sending, the fastest frame's way to its arrival counting as none. behind_s: at the end.
    drops: frames dropped after decoding; skipped: before it.
    """

    stream: str
    cores: int
    fps: float
    p50_ms: float
    p95_ms: float
    age_p50_ms: float
    age_p95_ms: float
    behind_s: float
    drops: int
    skipped: int
    level: int

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def bench_live_ages(
    config: PipelineConfig,
    clip: Path,
    seconds: float,
    streams: Mapping[str, SizeHW] = STREAMS,
    cores: Sequence[int] = CORES,
    progress: Callable[[AgeRow], None] = lambda row: None,
) -> list[AgeRow]:
    """Run each stream of the loopback on so many cores, `seconds` long after a few of warm-up.

    Each run is a process of its own, pinned to its cores; the sender uses any. Raises `ModelError`
    if one ends without a result.
    """
    rows = []
    for count in cores:
        for name, size_hw in streams.items():
            with camera_process(clip, size_hw, RATE) as url:
                rows.append(_in_process(config, url, name, count, seconds))
            progress(rows[-1])
    return rows


def _in_process(config: PipelineConfig, url: str, name: str, cores: int, seconds: float) -> AgeRow:
    here, there = (context := get_context("spawn")).Pipe()
    process = context.Process(
        target=_run,
        args=(there, config, url, name, cores, seconds, sys.getswitchinterval()),
        daemon=True,
    )
    with pinned(cores):
        process.start()
    there.close()
    try:
        row: AgeRow = here.recv()
    except EOFError as error:
        raise ModelError(f"the run on {name} ended without a result") from error
    finally:
        process.join()
    return row


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Let this thread, and the processes it starts, use so many cores (Linux; else all)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _run(
    there: Connection,
    config: PipelineConfig,
    url: str,
    name: str,
    cores: int,
    seconds: float,
    switch_s: float,
) -> None:
    sys.setswitchinterval(switch_s)
    session = LiveSession.open(url, config)
    watch = _Watch(session, seconds)
    session.run(lambda info: [CallbackSink(watch.take)])
    there.send(watch.row(name, cores))


class _Watch:
    """Takes results, and stops the run when enough were measured."""

    def __init__(self, session: LiveSession, seconds: float) -> None:
        self._session = session
        self._seconds = seconds
        self._began_s: float | None = None
        self._before = session.status()
        self._after = self._before
        self._times: list[tuple[float, float, float]] = []  # of sending, arrival, result
        self._way_s = float("inf")  # of the fastest frame, plus a constant between the two clocks

    def take(self, live: LiveResult) -> None:
        """Note a published result."""
        now_s, arrival, sent_s = time.monotonic(), live.frame.arrival, live.frame.pts_s
        if arrival is None or sent_s is None:
            return
        self._way_s = min(self._way_s, arrival.monotonic_s - sent_s)
        if self._began_s is None:
            self._began_s = now_s + _WARM_UP_S
        if now_s < self._began_s:
            self._before = self._session.status()
        elif now_s < self._began_s + self._seconds:
            self._times.append((sent_s, arrival.monotonic_s, now_s))
            self._after = self._session.status()
        else:
            self._session.stop()

    def row(self, name: str, cores: int) -> AgeRow:
        """What was measured."""
        sent_s, arrived_s, shown_s = np.array(self._times or [(0.0, 0.0, 0.0)]).T
        latency = np.percentile(1000 * (shown_s - arrived_s), (50, 95))
        age = np.percentile(1000 * (shown_s - sent_s - self._way_s), (50, 95))
        before, after = self._before, self._after
        return AgeRow(
            name,
            cores,
            fps=round(len(self._times) / self._seconds, 1),
            p50_ms=round(float(latency[0]), 1),
            p95_ms=round(float(latency[1]), 1),
            age_p50_ms=round(float(age[0]), 1),
            age_p95_ms=round(float(age[1]), 1),
            behind_s=round(after.behind_s, 2),
            drops=after.drops - before.drops,
            skipped=after.source["skipped"] - before.source["skipped"],
            level=after.governor.level,
        )
