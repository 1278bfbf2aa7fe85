"""`bench live --cameras`: latency and rate of several cameras in one process, on two cores."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.bench.loopback import camera_process
from maskstream.pipeline.live.cameras import LiveCameras
from maskstream.pipeline.live.session import CallbackSink, LiveResult
from maskstream.pipeline.types import SizeHW

WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class CamerasRow:
    """What so many cameras did. fps, p95_ms: of each camera; p50_ms, p99_ms: of all together.

    Latencies are from the demuxer to the published result. dropped: share of the frames. objects:
    mean number over all cameras of visible ones. level, levels: the governor's at the end.
    """

    cameras: int
    seconds: float
    fps: tuple[float, ...]
    p50_ms: float
    p95_ms: tuple[float, ...]
    p99_ms: float
    dropped: float
    keyframes_per_s: tuple[float, ...]
    objects: float
    level: int
    levels: int
    rss_mb: float


@dataclass(frozen=True, slots=True)
class CamerasReport:
    """Results of `bench live --cameras`."""

    clip: str
    size_hw: SizeHW
    model: str
    deadline_ms: float
    rows: tuple[CamerasRow, ...]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def bench_cameras(
    config: PipelineConfig, clip: Path, size_hw: SizeHW, seconds: float, counts: Sequence[int]
) -> CamerasReport:
    """Run so many cameras, each a process that streams the clip at 30 frames a second.

    Measured for `seconds` after a warm-up, each number in a process of its own; objects are seeded.
    Raises `ModelError`, `SourceError`.
    """
    rows = []
    for count in counts:
        with ProcessPoolExecutor(
            1, get_context("spawn"), sys.setswitchinterval, (sys.getswitchinterval(),)
        ) as process:
            work = process.submit(measure_cameras, config, clip, size_hw, seconds, count)
            rows.append(work.result())
    model = Path(config.model).name
    return CamerasReport(clip.name, size_hw, model, config.live.latency_ms, tuple(rows))


def measure_cameras(
    config: PipelineConfig,
    clip: Path,
    size_hw: SizeHW,
    seconds: float,
    count: int,
    *,
    warm_up_s: float = WARM_UP_S,
) -> CamerasRow:
    """Run so many cameras in this process, as `bench_cameras` does."""
    with ExitStack() as stack:
        urls = [stack.enter_context(camera_process(clip, size_hw)) for _ in range(count)]
        cameras = LiveCameras.open({f"camera{n}": url for n, url in enumerate(urls, 1)}, config)
        watch = _Watch(cameras)
        conductor = threading.Thread(target=watch.conduct, args=(warm_up_s, seconds), daemon=True)
        conductor.start()
        cameras.run(lambda name, info: [CallbackSink(partial(watch.take, name))])
        for failure in cameras.failures.values():
            raise failure
        conductor.join()
    return watch.rows[0]


class _Watch:
    """Takes results, and measures after the warm-up."""

    def __init__(self, cameras: LiveCameras) -> None:
        self.rows: list[CamerasRow] = []
        self._cameras = cameras
        self._begun = {name: threading.Event() for name in cameras.sessions}
        self._clear()

    def take(self, name: str, live: LiveResult) -> None:
        """Record a published result."""
        self._begun[name].set()
        if live.frame.arrival is not None:
            latency_s = time.monotonic() - live.frame.arrival.monotonic_s
            self._latencies_ms[name].append(1000 * latency_s)
            self._objects[name].append(sum(1 for found in live.result.objects if found.area))

    def conduct(self, warm_up_s: float, seconds: float) -> None:
        """Warm up, measure, and stop the run."""
        try:
            for begun in self._begun.values():
                begun.wait()
            time.sleep(warm_up_s)
            self._clear()
            before, begun_s = self._cameras.status(), time.monotonic()
            time.sleep(seconds)
            measured_s = time.monotonic() - begun_s
            after = self._cameras.status()
            results = {n: after[n].frames - before[n].frames for n in after}
            drops = sum(after[n].drops - before[n].drops for n in after)
            latencies = {n: values or [0.0] for n, values in self._latencies_ms.items()}
            p50, p99 = np.percentile(np.concatenate(list(latencies.values())), (50, 99))
            last = next(iter(after.values()))
            self.rows.append(
                CamerasRow(
                    cameras=len(after),
                    seconds=measured_s,
                    fps=tuple(count / measured_s for count in results.values()),
                    p50_ms=float(p50),
                    p95_ms=tuple(float(np.percentile(v, 95)) for v in latencies.values()),
                    p99_ms=float(p99),
                    dropped=drops / max(1, drops + sum(results.values())),
                    keyframes_per_s=tuple(
                        (after[n].keyframes - before[n].keyframes) / measured_s for n in after
                    ),
                    objects=float(sum(np.mean(v or [0]) for v in self._objects.values())),
                    level=last.governor.level,
                    levels=last.governor.levels,
                    rss_mb=last.rss_mb["end"],
                )
            )
        finally:
            self._cameras.stop()

    def _clear(self) -> None:
        self._latencies_ms: dict[str, list[float]] = {name: [] for name in self._begun}
        self._objects: dict[str, list[int]] = {name: [] for name in self._begun}
