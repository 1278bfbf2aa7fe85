"""Live frames from a program, and recordings replayed in real time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from threading import Event

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import ArrayView, check_rgb
from maskstream.pipeline.sources.recording import ImageRecorder
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

    images: arrays, or pairs of an array and its timestamp in nanoseconds, for example from a camera
    driver or a ROS header; arrays alone get the capture clock. record: a file for lossless
    recording.
    """

    images: Iterable[Image]
    record: Path | None = None
    clock: Clock = SYSTEM_CLOCK

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
        images = iter(source.images)
        first = next(images, None)
        if first is None:
            raise UnreadableSourceError("The iterable given as source holds no frames.")
        self._clock = source.clock
        self._images = chain([first], images)
        stamped = isinstance(first, tuple)
        rgb = first[0] if isinstance(first, tuple) else first
        check_rgb(rgb, index=0)
        self.info = SourceInfo(
            name="pictures",
            size_hw=(rgb.shape[0], rgb.shape[1]),
            time_base=TIME_BASE,
            clock="stream" if stamped else "capture",
            live=True,
        )
        self.report = SourceReport()
        self._recorder = source.record and ImageRecorder(source.record, self.info.size_hw)

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            arrival = Arrival(self._clock.monotonic(), self._clock.unix())
            rgb, pts = image if isinstance(image, tuple) else (image, None)
            check_rgb(rgb, index)
            if rgb.shape[:2] != self.info.size_hw:
                raise SourceError(
                    f"Image {index} is {rgb.shape[:2]} (height, width), but the first is "
                    f"{self.info.size_hw}; give images of one size."
                )
            pts = round(arrival.unix_s / TIME_BASE) if pts is None else pts
            if self._recorder:
                self._recorder.write(rgb, float(pts * TIME_BASE))
            self.report.frames += 1
            view = ArrayView(rgb)
            yield Frame(index, pts, TIME_BASE, self.info.size_hw, view, arrival)

    def close(self) -> None:
        if self._recorder:
            self._recorder.close()


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording replayed in real time, by its timestamps."""

    source: Source
    clock: Clock = SYSTEM_CLOCK

    @contextmanager
    def open(self) -> Iterator[_ReplayReader]:
        """Open the recording. Raises `SourceError`."""
        with self.source.open() as reader:
            yield _ReplayReader(reader, self.clock)


class _ReplayReader:
    def __init__(self, reader: FrameReader, clock: Clock) -> None:
        self.info = replace(reader.info, frame_count=None, live=True)
        self.report = reader.report
        self._reader = reader
        self._clock = clock

    def __iter__(self) -> Iterator[Frame]:
        never = Event()
        started: float | None = None
        for frame in self._reader:
            now, shown = self._clock.monotonic(), frame.pts_s or 0.0
            started = now - shown if started is None else started
            if started + shown > now:
                self._clock.wait(never, started + shown - now)
            arrival = Arrival(self._clock.monotonic(), self._clock.unix())
            yield replace(frame, arrival=arrival)
