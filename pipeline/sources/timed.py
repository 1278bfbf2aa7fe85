"""Live frames from a program, and recordings replayed in real time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from threading import Event

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import ArrayView, arrays_of, check_rgb
from maskstream.pipeline.sources.recording import FrameRecorder, Recordings
from maskstream.pipeline.types import (
    Arrival,
    Frame,
    FrameReader,
    RgbImage,
    Source,
    SourceInfo,
    SourceReport,
)

TIME_BASE = Fraction(1, 1_000_000_000)
Image = RgbImage | tuple[RgbImage, int]


@dataclass(frozen=True, slots=True)
class LiveArrays:
    """A source of live images from a program, RGB uint8 [H, W, 3] of one size.

    images: arrays, or pairs of an array and its timestamp in nanoseconds (an integer that does not
    decrease), for example from a camera driver or a ROS header; arrays alone get the capture clock.
    Arrays are copied, so their memory may be used again for the next one. record: a file for
    lossless recording. name: of the source.
    """

    images: Iterable[Image]
    record: Path | None = None
    clock: Clock = SYSTEM_CLOCK
    name: str = "pictures"
    recordings: Recordings = field(default_factory=Recordings)

    @contextmanager
    def open(self) -> Iterator[_ArraysReader]:
        """Wait for the first image. Raises `SourceError` if there is none."""
        reader = _ArraysReader(self)
        try:
            yield reader
        finally:
            reader.close()


class _ArraysReader:
    def __init__(self, source: LiveArrays) -> None:
        images = arrays_of(source.images)
        first = next(images, None)
        if first is None:
            raise UnreadableSourceError("The iterable given as source holds no frames.")
        self._clock = source.clock
        self._images = chain([first], images)
        rgb, stamp_ns = _parts(first, index=0)
        self._stamped = stamp_ns is not None
        self.info = SourceInfo(
            name=source.name,
            size_hw=(rgb.shape[0], rgb.shape[1]),
            time_base=TIME_BASE,
            clock="stream" if self._stamped else "capture",
            live=True,
        )
        self.report = SourceReport()
        self._recorder = source.record and FrameRecorder(
            source.record, _packed(rgb), source.recordings
        )

    def __iter__(self) -> Iterator[Frame]:
        last_ns: int | None = None
        for index, image in enumerate(self._images):
            arrival = Arrival(self._clock.monotonic(), self._clock.unix())
            rgb, stamp_ns = _parts(image, index)
            if rgb.shape[:2] != self.info.size_hw:
                raise SourceError(
                    f"Image {index} is {rgb.shape[:2]} (height, width), but the first is "
                    f"{self.info.size_hw}; give images of one size."
                )
            self._check_stamp(index, stamp_ns, last_ns)
            last_ns = stamp_ns
            arrival = replace(arrival, given_ns=stamp_ns)
            pts = round(arrival.unix_s / TIME_BASE) if stamp_ns is None else stamp_ns
            if self._recorder:
                self._recorder.write(_packed(rgb), float(pts * TIME_BASE))
                self.report.recording_failed = self._recorder.failed
            self.report.frames += 1
            view = ArrayView(rgb.copy())  # the frame waits; the program may fill its array anew
            yield Frame(index, pts, TIME_BASE, self.info.size_hw, view, arrival)

    def close(self) -> None:
        if self._recorder:
            self._recorder.close()
            self.report.recording_failed = self._recorder.failed

    def _check_stamp(self, index: int, stamp_ns: int | None, last_ns: int | None) -> None:
        if (stamp_ns is not None) != self._stamped:
            has, first = ("has a", "has none") if stamp_ns is not None else ("has no", "has one")
            raise SourceError(
                f"Image {index} {has} timestamp, but the first {first}; give all images one, or "
                "none."
            )
        if stamp_ns is not None and last_ns is not None and stamp_ns < last_ns:
            raise SourceError(
                f"The timestamp of image {index}, {stamp_ns} ns, is before that of the image "
                f"before it, {last_ns} ns; give images in the order in which they were taken."
            )


def _parts(image: object, index: int) -> tuple[RgbImage, int | None]:
    """Check an image, or a pair of one and its timestamp, ns. Raises `SourceError`."""
    if not isinstance(image, tuple):
        return check_rgb(image, index), None
    if len(image) != 2:
        raise SourceError(
            f"Image {index} is {len(image)} values; give an array, or a pair of an array and its "
            "timestamp in nanoseconds."
        )
    rgb, stamp_ns = image
    if isinstance(stamp_ns, bool | np.bool_) or not isinstance(stamp_ns, int | np.integer):
        raise SourceError(
            f"The timestamp of image {index} is {type(stamp_ns).__name__} {stamp_ns!r}; it must be "
            "an integer of nanoseconds (seconds: round(1e9 * seconds))."
        )
    return check_rgb(rgb, index), int(stamp_ns)


def _packed(rgb: RgbImage) -> VideoFrame:
    return VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording replayed in real time, by its timestamps, until `stopped` is set."""

    source: Source
    clock: Clock = SYSTEM_CLOCK
    stopped: Event = field(default_factory=Event)

    @contextmanager
    def open(self) -> Iterator[_ReplayReader]:
        """Open the recording. Raises `SourceError`."""
        with self.source.open() as reader:
            yield _ReplayReader(reader, self.clock, self.stopped)


class _ReplayReader:
    def __init__(self, reader: FrameReader, clock: Clock, stopped: Event) -> None:
        self.info = replace(reader.info, frame_count=None, live=True)
        self.report = reader.report
        self._reader = reader
        self._clock = clock
        self._stopped = stopped

    def __iter__(self) -> Iterator[Frame]:
        started: float | None = None
        for frame in self._reader:
            now, shown = self._clock.monotonic(), frame.pts_s or 0.0
            started = now - shown if started is None else started
            if started + shown > now and self._clock.wait(self._stopped, started + shown - now):
                return
            arrival = Arrival(self._clock.monotonic(), self._clock.unix())
            yield replace(frame, arrival=arrival)
