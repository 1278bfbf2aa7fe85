"""Where live pictures come from: a camera or stream of the server, or the browser's own camera."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.error
import cv2
import numpy as np

from pipeline.errors import QueueClosedError, UnreadableSourceError
from pipeline.framequeue import FrameQueue, Policy
from pipeline.sources.arrays import ArrayView
from pipeline.sources.checks import check_size
from pipeline.sources.position import FrameRange
from pipeline.sources.video import VideoReader
from pipeline.types import Frame, FrameReader, SizeHW, SourceInfo, SourceReport

LIVE_SCHEMES = ("rtsp", "rtsps", "tcp", "udp", "rtmp", "srt", "http", "https")
_OPEN_S, _STALL_S = 8.0, 5.0  # without a packet, after which a stream is given up
_READY_S = 60.0  # at the most, until the network is loaded
_SILENT_S = 15.0  # without a picture from the browser
_MILLISECOND = Fraction(1, 1000)
_PROMPTLY = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000"}


def is_address(text: str) -> bool:
    """Whether a text names a stream rather than a file."""
    return text.partition("://")[0].lower() in LIVE_SCHEMES and "://" in text


def is_device(text: str) -> bool:
    """Whether a text names a camera of this machine: `/dev/video0` or `0`."""
    return bool(re.fullmatch(r"(/dev/video)?\d{1,2}", text))


@dataclass(frozen=True, slots=True)
class StreamSource:
    """A stream or a camera of the server; a file comes at its own pace.

    ready: when it is set somebody can take frames, and a file goes on after its first one.
    """

    target: str
    ready: threading.Event | None = None

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Connect. Raises `UnreadableSourceError`."""
        device = is_device(self.target)
        name = f"/dev/video{self.target}" if self.target.isdecimal() else self.target
        bare = name.startswith(("tcp:", "udp:"))
        try:
            container = av.open(
                name,
                format="v4l2" if device else "mpegts" if bare else None,
                options=_PROMPTLY if is_address(name) else {},
                timeout=(_OPEN_S, _STALL_S),
            )
        except (av.error.FFmpegError, OSError) as error:
            raise UnreadableSourceError(
                f"{self.target} cannot be opened ({error.strerror or error}); check the address, "
                "and that the camera is on and nobody else uses it."
            ) from error
        with container:
            reader = VideoReader(name, container, FrameRange())
            info = replace(reader.info, name=self.target)
            paced = not (device or is_address(name))
            yield LiveReader(info, reader.report, self._paced(reader) if paced else iter(reader))
            reader.close()

    def _paced(self, frames: FrameReader) -> Iterator[Frame]:
        """Frames of a file when they are due."""
        begun: float | None = None
        hurry = threading.Event()  # never set: only to wait
        for frame in frames:
            early_s = (frame.pts_s or 0.0) - time.monotonic()
            if begun is not None:
                hurry.wait(max(0.0, early_s - begun))
            yield frame
            if begun is None:
                if self.ready is not None:
                    self.ready.wait(_READY_S)
                begun = (frame.pts_s or 0.0) - time.monotonic()


@dataclass(slots=True)
class LiveReader:
    """An opened live source: iterate once."""

    info: SourceInfo
    report: SourceReport
    frames: Iterator[Frame]

    def __iter__(self) -> Iterator[Frame]:
        return self.frames


class PushedPictures:
    """Pictures that a browser sends from its camera, as a source; the newest wins.

    monotonic: tells seconds. stamps: what the browser said of each frame, by number, lately.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.stamps: dict[int, float] = {}
        self._monotonic = monotonic
        self._begun_s = monotonic()
        self._count = 0
        self._queue: FrameQueue[Frame] = FrameQueue(1, Policy.LATEST)

    def push(self, encoded: bytes, stamp: float) -> None:
        """Take an encoded picture. Raises `UnreadableSourceError`, `QueueClosedError`."""
        data = np.frombuffer(encoded, np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if bgr is None:
            raise UnreadableSourceError("That is no picture of a camera (JPEG, PNG or WebP).")
        size_hw: SizeHW = (bgr.shape[0], bgr.shape[1])
        check_size("The camera", size_hw)
        view = ArrayView(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
        pts = round(1000 * (self._monotonic() - self._begun_s))
        self.stamps[self._count] = stamp
        self.stamps.pop(self._count - 64, None)
        self._queue.put(Frame(self._count, pts, _MILLISECOND, size_hw, view))
        self._count += 1

    def close(self) -> None:
        """No more pictures come."""
        self._queue.close()

    @contextmanager
    def open(self) -> Iterator[FrameReader]:
        """Wait for the first picture. Raises `UnreadableSourceError`."""
        frames = self._frames()
        first = next(frames, None)
        if first is None:
            raise UnreadableSourceError("The browser sent no picture of its camera.")
        info = SourceInfo("browser camera", first.size_hw, _MILLISECOND)
        yield LiveReader(info, SourceReport(), _with(first, frames))

    def _frames(self) -> Iterator[Frame]:
        while self._queue.wait(_SILENT_S):
            try:
                yield self._queue.get()
            except QueueClosedError:
                return


def _with(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest
