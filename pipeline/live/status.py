"""Status of a live run: counts, latency, memory, governor, source, hanging stages."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.clock import Clock
from maskstream.pipeline.live.governor import GovernorState
from maskstream.pipeline.live.latency import LatencyHistogram
from maskstream.pipeline.live.shared_work import Observe
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.types import Frame, FrameResult

logger = logging.getLogger(__name__)

_RECENT = 60  # results


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """Status of a live run at one moment, or at its end.

    drops: frames dropped for newer ones, since the first result. full: every object id has been
    used, so no object can be added. latency_ms: p50, p95 and p99 of all results; recent_latency_ms,
    recent_fps: of the last 60. rss_mb: resident memory at the first result and now, MiB. source:
    connected, connections, gaps, frames skipped before decoding, corrupt packets, last error,
    recording ("copied", "encoded", "").
    hanging: seconds that stages exceeding the watchdog's limit have been running, by name.
    abandoned: what did not end with the run and was left behind: "source", "status" (the callback).
    failed: why outputs failed, by name. behind_s: time from the arrival of the newest result's
    frame to that of the newest frame, seconds; results are behind if it exceeds the deadline.
    since_capture_ms: as `recent_latency_ms`, but from the capture by the sender's clock, as right
    as the two clocks agree; empty if the sender does not state it.
    """

    seconds: float
    frames: int
    drops: int
    keyframes: int
    objects: int
    full: bool
    latency_ms: Mapping[str, float]
    recent_latency_ms: Mapping[str, float]
    recent_fps: float
    rss_mb: Mapping[str, float]
    governor: GovernorState
    source: Mapping[str, Any]
    hanging: Mapping[str, float]
    abandoned: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    behind_s: float = 0.0
    since_capture_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Results per second since the first one."""
        return (self.frames - 1) / self.seconds if self.seconds > 0 and self.frames > 1 else 0.0

    def to_json(self, kind: str = "status") -> dict[str, Any]:
        """Convert to JSON values. kind: "status", or "summary" at the end."""
        return {
            "type": kind,
            "frames": self.frames,
            "fps": round(self.fps, 2),
            "drops": self.drops,
            "keyframes": self.keyframes,
            "keyframe_share": round(self.keyframes / max(1, self.frames), 4),
            "objects": self.objects,
            "full": self.full,
            "seconds": round(self.seconds, 2),
            "latency_ms": dict(self.latency_ms),
            "behind_s": round(self.behind_s, 3),
            "recent_latency_ms": dict(self.recent_latency_ms),
            "since_capture_ms": dict(self.since_capture_ms),
            "recent_fps": round(self.recent_fps, 2),
            "rss_mb": dict(self.rss_mb),
            "governor": self.governor.to_json(),
            "source": dict(self.source),
            "hanging": {name: round(seconds, 1) for name, seconds in self.hanging.items()},
            "abandoned": list(self.abandoned),
            "failed": dict(self.failed),
        }


class Meter:
    """A `Sink` behind the publishers that measures latency and passes it to the governor.

    observe: of the governor. dropped: returns the number of frames dropped since the source was
    opened.
    """

    def __init__(self, observe: Observe, clock: Clock, dropped: Callable[[], int]) -> None:
        self.frames = self.objects = 0
        self.full = False
        self.latency = LatencyHistogram()
        self.rss_start_mb = 0.0
        self.first_s: float | None = None
        self.last_s = 0.0
        self.last_arrival_s: float | None = None
        self._observe = observe
        self._clock = clock
        self._dropped = dropped
        self._dropped_before = 0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._since_capture: deque[float] = deque(maxlen=_RECENT)
        self._recent_s: deque[float] = deque(maxlen=_RECENT)  # when the results were published

    @property
    def drops(self) -> int:
        """Frames dropped since the first result; those before it waited for the first keyframe."""
        return self._dropped() - self._dropped_before if self.frames else 0

    @property
    def recent_ms(self) -> dict[str, float]:
        """p50, p95 and p99 of the last results, ms."""
        return _percentiles_ms(list(self._recent) or [0.0])

    @property
    def since_capture_ms(self) -> dict[str, float]:
        """The same from the capture by the sender's clock; empty if that is not stated."""
        return _percentiles_ms(list(self._since_capture)) if self._since_capture else {}

    @property
    def recent_fps(self) -> float:
        """Results per second over the last results."""
        times = list(self._recent_s)
        seconds = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / seconds if seconds > 0 else 0.0

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count a result that has just been published."""
        now = self.last_s = self._clock.monotonic()
        self._recent_s.append(now)
        if self.first_s is None:
            self.first_s, self._dropped_before = now, self._dropped()
            self.rss_start_mb = resident_mb()
        self.frames += 1
        self.objects = sum(1 for found in result.objects if found.area)
        self.full |= uses_last_id(result)
        if frame.arrival is None:
            return
        self.last_arrival_s = frame.arrival.monotonic_s
        latency_s = now - frame.arrival.monotonic_s
        self._recent.append(latency_s)
        if frame.arrival.ntp_s is not None:
            self._since_capture.append(self._clock.unix() - frame.arrival.ntp_s)
        if self.frames > 1:  # standard input's first frame waited for the model
            self.latency.add(latency_s)
            self._observe(latency_s, self.drops, now)

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""


def _percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    values = np.percentile(seconds, (50, 95, 99)) * 1000
    return {f"p{p}": round(float(v), 1) for p, v in zip((50, 95, 99), values, strict=True)}


def uses_last_id(result: FrameResult) -> bool:
    """Whether a result contains the object with the largest possible id."""
    return any(found.id == MAX_OBJECT_ID for found in result.objects)


class Watchdog:
    """Finds stages that hang. limit_s: the longest that a stage may work on one frame, seconds."""

    def __init__(self, running: Callable[[], Mapping[str, float]], limit_s: float) -> None:
        self._running = running
        self._limit_s = limit_s
        self._named: set[str] = set()

    def hanging(self) -> dict[str, float]:
        """Names of the hanging stages, and for how long, seconds; each hang is logged once."""
        found = {n: s for n, s in self._running().items() if s > self._limit_s}
        for name in found.keys() - self._named:
            logger.error("the stage '%s' hangs for %.1f s", name, found[name])
        self._named = set(found)
        return found


def resident_mb() -> float:
    """Resident memory of this process now, MiB (0 where the system does not report it)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def open_handles() -> int:
    """Open file handles of this process (0 where the system does not report them)."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def thread_count() -> int:
    """Threads of this process, including those of libraries where the system reports them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
