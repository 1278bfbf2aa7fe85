"""`bench soak`: hours of camera frames in minutes; memory, handles and threads must not grow."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.live.live_store import RollingStore
from maskstream.pipeline.live.reconnect import ReconnectingSource, ReconnectPolicy
from maskstream.pipeline.live.session import CallbackSink, LiveResult, LiveSession, live_config
from maskstream.pipeline.live.status import open_handles, resident_mb, thread_count
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.store import MaskStoreWriter
from maskstream.pipeline.types import (
    Arrival,
    Frame,
    FrameResult,
    RgbImage,
    SizeHW,
    SourceInfo,
    SourceReport,
)

_RATE = 30
_TIME_BASE = Fraction(1, 1000)
_SCENE = 90  # images that are repeated
_BREAKS = 20  # connections of a run; every other one has another size; timestamps restart at 0
_SAMPLES = 20
_WARM = 5  # samples until memory must be stable
_ALLOWED_MB = 16.0
_STORE_PARTS = 15  # stores written in a run
_WAIT_S = 10.0
_IN_FLIGHT = 4  # frames between the camera and the last sink
_POLICY = ReconnectPolicy(retry_first_s=0.004, retry_max_s=0.004)


@dataclass(frozen=True, slots=True)
class SoakSample:
    """State of the process after some frames."""

    frames: int
    rss_mb: float
    handles: int
    threads: int


@dataclass(frozen=True, slots=True)
class SoakReport:
    """Result of the run. samples: evenly spread over it; growth is counted from the fifth on."""

    frames: int
    seconds: float
    connections: int
    gaps: int
    objects: int
    samples: tuple[SoakSample, ...]

    @property
    def growth(self) -> SoakSample:
        """The last sample minus the fifth."""
        settled, last = self.samples[min(_WARM, len(self.samples)) - 1], self.samples[-1]
        return SoakSample(
            last.frames - settled.frames,
            round(last.rss_mb - settled.rss_mb, 1),
            last.handles - settled.handles,
            last.threads - settled.threads,
        )

    @property
    def shown(self) -> tuple[SoakSample, ...]:
        """The first sample, the middle one and the last: 5, 50 and 100 % of a whole run."""
        return self.samples[0], self.samples[(len(self.samples) - 1) // 2], self.samples[-1]

    @property
    def flat(self) -> bool:
        """Whether nothing grew: no handle, no thread, less than 16 MiB."""
        grown = self.growth
        return grown.rss_mb < _ALLOWED_MB and grown.handles <= 0 and grown.threads <= 0

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"growth": asdict(self.growth), "flat": self.flat}


def bench_soak(
    config: PipelineConfig,
    frames: int,
    size_hw: SizeHW = (180, 320),
    progress: Callable[[SoakSample], None] = lambda sample: None,
    max_s: float = float("inf"),
) -> SoakReport:
    """Run a live session on a fake camera that sends each frame when an earlier result is taken.

    The connection breaks twenty times. Results go to stores of which only the last are retained.
    After `max_s` seconds no further frame is sent. Raises `ModelError`, `StoreError`.
    """
    camera = FakeCamera(frames, size_hw, time.monotonic() + max_s)
    source = ReconnectingSource(camera, reopenable=True, policy=_POLICY)
    camera.at_end = source.stop
    session = LiveSession(_none_dropped(live_config(config)), source)
    source.resume()  # this camera waits for its results by itself
    samples: list[SoakSample] = []
    every = max(1, frames // _SAMPLES)
    objects: set[int] = set()

    def take(live: LiveResult) -> None:
        objects.update(found.id for found in live.result.objects)
        if (live.frame.index + 1) % every == 0:
            samples.append(_sample(live.frame.index + 1))
            progress(samples[-1])
        camera.taken.release()

    begun = time.monotonic()
    quiet = logging.getLogger("maskstream.pipeline.live.reconnect")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="maskstream-soak-") as folder:
            retain_s = 10 * frames / _RATE / _STORE_PARTS
            status = session.run(
                behind=lambda info: [
                    _ByTimestamp(RollingStore(Path(folder), retain_s, _opener(info))),
                    CallbackSink(take),
                ]
            )
    finally:
        quiet.setLevel(level)
    seconds = time.monotonic() - begun
    if not samples or samples[-1].frames < status.frames:
        samples.append(_sample(status.frames))
    connections = int(status.source["connections"])
    return SoakReport(
        status.frames,
        seconds,
        connections,
        int(status.source["gaps"]),
        len(objects),
        tuple(samples),
    )


def _sample(frames: int) -> SoakSample:
    return SoakSample(frames, resident_mb(), open_handles(), thread_count())


def _none_dropped(config: PipelineConfig) -> PipelineConfig:
    """Let the camera wait for the run, with frames as of a live one."""
    queue = config.queue.model_copy(update={"policy": "wait"})
    tracking = config.tracking.model_copy(update={"refine": False})
    return config.model_copy(update={"queue": queue, "tracking": tracking})


class FakeCamera:
    """A source of moving shapes whose connection breaks regularly.

    A few frames are under way; the next one waits until `taken` is released for a result.
    at_end: called after the last frame. end_s: when no further frame is sent, monotonic.
    """

    def __init__(self, frames: int, size_hw: SizeHW, end_s: float = float("inf")) -> None:
        self._end_s = end_s
        self.taken = threading.Semaphore(_IN_FLIGHT)
        self.at_end: Callable[[], None] = lambda: None
        self.left = frames
        self.connections = 0
        self.each = max(1, frames // _BREAKS)
        self.scene = list(_scene(size_hw))

    def check_time(self) -> None:
        """Send no further frame if the time is over."""
        if time.monotonic() > self._end_s:
            self.left = 0

    @contextmanager
    def open(self) -> Iterator[_FakeReader]:
        """Connect."""
        self.connections += 1
        yield _FakeReader(self)


class _FakeReader:
    def __init__(self, camera: FakeCamera) -> None:
        smaller = camera.connections % 2 == 0
        height, width = camera.scene[0].shape[:2]
        size_hw = (height * 3 // 4, width * 3 // 4) if smaller else (height, width)
        self.info = SourceInfo("fake camera", size_hw, _TIME_BASE, Fraction(_RATE), live=True)
        self.report = SourceReport()
        self._camera = camera

    def __iter__(self) -> Iterator[Frame]:
        camera = self._camera
        for number in range(min(camera.each, camera.left)):
            camera.check_time()
            if not camera.left or not camera.taken.acquire(timeout=_WAIT_S):
                break
            camera.left -= 1
            rgb = camera.scene[number % len(camera.scene)]
            arrival = Arrival(time.monotonic(), time.time())
            pts = number * 1000 // _RATE
            yield Frame(number, pts, _TIME_BASE, self.info.size_hw, ArrayView(rgb), arrival)
        if camera.left <= 0:
            for _ in range(_IN_FLIGHT):  # until the last result is out
                camera.taken.acquire(timeout=_WAIT_S)
            camera.at_end()


class _ByTimestamp:
    """Passes results to a store with arrival times as at the nominal frame rate."""

    def __init__(self, store: RollingStore) -> None:
        self._store = store
        self.idle, self.close = store.idle, store.close

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the result with the nominal arrival time of its frame."""
        arrival = frame.arrival and replace(frame.arrival, monotonic_s=frame.index / _RATE)
        self._store.write(replace(frame, arrival=arrival), result)


def _opener(info: SourceInfo) -> Callable[[Path | str], MaskStoreWriter]:
    return lambda path: MaskStoreWriter(path, info=info, attributes={})


def _scene(size_hw: SizeHW) -> Iterator[RgbImage]:
    """Three discs that circle over a textured background, as a seamless loop."""
    height, width = size_hw
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 120, (height // 6, width // 6, 3), np.uint8)
    background = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for number in range(_SCENE):
        image = background.copy()
        for disc in range(3):
            turn = 2 * np.pi * (number / _SCENE + disc / 3)
            center = (0.5 + 0.3 * np.array([np.cos(turn), np.sin(turn)])) * (width, height)
            color = tuple(int(255 * (channel == disc)) for channel in range(3))
            x, y = (round(float(value)) for value in center)
            cv2.circle(image, (x, y), round(0.13 * height), color, cv2.FILLED)
        yield np.asarray(image, np.uint8)
