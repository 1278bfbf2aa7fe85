"""`bench live`: latency of a live run on a loopback stream, also with one CPU core busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.bench.loopback import camera_process
from maskstream.pipeline.lab.bench.stream import Box
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.session import CallbackSink, LiveResult, LiveSession
from maskstream.pipeline.live.status import LiveStatus
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.state import TrackState

_WARM_UP_S = 5.0
_PROMPT_EVERY_S = 1.0
_VISIBLE = (TrackState.TRACKED, TrackState.REENTERED)
GOAL_FPS = 24.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the run. p50_ms, p95_ms, p99_ms: latency from the demuxer to the published result.

    objects: mean number of visible objects. level: the governor's level at the end.
    """

    name: str
    seconds: float
    results: int
    drops: int
    keyframes: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    objects: float
    level: int
    rss_mb: float

    @property
    def fps(self) -> float:
        """Results per second."""
        return self.results / self.seconds


@dataclass(frozen=True, slots=True)
class LiveReport:
    """Results of `bench live`."""

    clip: str
    size_hw: SizeHW
    model: str
    deadline_ms: float
    phases: tuple[Phase, ...]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"phases": [asdict(p) | {"fps": p.fps} for p in self.phases]}


def bench_live(
    config: PipelineConfig,
    clip: Path,
    size_hw: SizeHW,
    seconds: float,
    *,
    burn: bool = False,
    boxes: Sequence[Box] = (),
) -> LiveReport:
    """Run on a clip streamed at 30 frames per second, for `seconds` after a few of warm-up.

    burn: add two phases of the same length: with a process that keeps one core busy, and again
    without it. boxes: prompts, pixels xyxy; they are repeated every second, because a network with
    random weights loses the objects. Without boxes, objects are seeded. Raises `ModelError`,
    `SourceError`.
    """
    if boxes:
        config = config.without_seeding()
    names = ["calm", "a core burnt", "afterwards"] if burn else ["calm"]
    with camera_process(clip, size_hw) as url:
        session = LiveSession.open(url, config)
        watch = _Watch(session, boxes)
        conductor = threading.Thread(target=watch.conduct, args=(names, seconds), daemon=True)
        conductor.start()
        session.run(lambda info: [CallbackSink(watch.take)])
        conductor.join()
    return LiveReport(
        clip.name,
        size_hw,
        Path(session.pipeline.config.model).name,
        config.live.latency_ms,
        tuple(watch.phases),
        tuple(session.governor.history),
    )


class _Watch:
    """Takes results, and starts and ends the phases."""

    def __init__(self, session: LiveSession, boxes: Sequence[Box]) -> None:
        self.phases: list[Phase] = []
        self._session = session
        self._boxes = boxes
        self._prompted_s = 0.0
        self._begun = threading.Event()
        self._latencies_ms: list[float] = []
        self._objects: list[int] = []

    def take(self, live: LiveResult) -> None:
        """Record a published result."""
        self._begun.set()
        now_s = time.monotonic()
        if now_s - self._prompted_s >= _PROMPT_EVERY_S:
            self._prompted_s = now_s
            for number, box in enumerate(self._boxes, 1):
                self._session.command(Command(type="box", object=number, xyxy=box))
        if live.frame.arrival is not None:
            self._latencies_ms.append(1000 * (time.monotonic() - live.frame.arrival.monotonic_s))
            self._objects.append(sum(found.state in _VISIBLE for found in live.result.objects))

    def conduct(self, names: Sequence[str], seconds: float) -> None:
        """Run the phases one after the other, then stop the run."""
        self._begun.wait()
        time.sleep(_WARM_UP_S)
        for name in names:
            with _burner(at_work=name == "a core burnt"):
                before, begun = self._session.status(), time.monotonic()
                self._latencies_ms, self._objects = [], []
                time.sleep(seconds)
                self._end(name, before, time.monotonic() - begun)
        self._session.stop()

    def _end(self, name: str, before: LiveStatus, seconds: float) -> None:
        after = self._session.status()
        latencies = self._latencies_ms or [0.0]
        p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
        self.phases.append(
            Phase(
                name,
                seconds,
                results=after.frames - before.frames,
                drops=after.drops - before.drops,
                keyframes=after.keyframes - before.keyframes,
                p50_ms=p50,
                p95_ms=p95,
                p99_ms=p99,
                objects=float(np.mean(self._objects or [0])),
                level=after.governor.level,
                rss_mb=after.rss_mb["end"],
            )
        )


@contextmanager
def _burner(*, at_work: bool) -> Iterator[None]:
    """A process that keeps one core busy."""
    if not at_work:
        yield
        return
    process = get_context("spawn").Process(target=_burn, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _burn() -> None:
    while True:
        pass
