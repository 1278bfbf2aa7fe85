"""Writer and reader of exported video files, with the source's timestamps and colors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.video.frame import VideoFrame

from maskstream.pipeline.exports.color import Color
from maskstream.pipeline.exports.soundtrack import Soundtrack
from maskstream.pipeline.types import Frame

_FIELD_ORDERS = {"t": 2, "b": 3}  # AVFieldOrder: both fields are stored in this order, too
_REPEATABLE = {"fflags": "+bitexact"}  # no dates or random numbers: equal masks give equal files


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec with its options. decoder: for reading back, "" for FFmpeg's default."""

    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    decoder: str = ""


class Clock:
    """Timestamps of the written frames, in `time_base`: the source's own, moved to start at 0.

    keep_start: keep the time of the first frame instead, unless it is before 0. Without timestamps
    in the source they are counted at `rate`. frame_ticks: duration of a frame at the rate.
    timecode: of the first frame, if known.
    """

    def __init__(
        self,
        first: Frame,
        start: Frame,
        rate: Fraction,
        *,
        keep_start: bool = False,
        timecode: str | None = None,
    ) -> None:
        """Start a clock. first: first frame written; start: first frame of the source."""
        self.time_base = 1 / rate if first.pts is None else first.time_base
        self.is_part = first.index != start.index
        begins = first.pts or 0
        self.frame_ticks = max(1, round(1 / (rate * self.time_base)))
        self._origin = 0 if keep_start and begins > 0 else begins
        self._counted = -1
        self.timecode = timecode

    @property
    def origin_s(self) -> Fraction:
        """Source time that is 0 in the file, seconds."""
        return self._origin * self.time_base

    def stamp(self, frame: Frame) -> int:
        """Timestamp of the next frame."""
        self._counted += 1
        if frame.pts is None:
            return self._counted * self.frame_ticks
        return frame.pts - self._origin


class MovieWriter:
    """Encodes frames, and adds the source's audio.

    sound: file with the audio. field_order: as in `SourceInfo`. restarts_s: as in `SourceVideo`,
    which may add to it. Raises `OSError`, as do all methods.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        *,
        rate: Fraction,
        sound: Path | None,
        field_order: str = "",
        restarts_s: Sequence[Fraction] = (),
    ) -> None:
        self._encoding = encoding
        self._field_order = field_order
        self._restarts_s = restarts_s
        self._durations: dict[int, int] = {}  # of frames in the encoder, by timestamp
        self._rate = rate
        self._stack = ExitStack()
        self._stream: Any = None
        with _as_os_error():
            self._container = self._stack.enter_context(
                av.open(str(path.absolute()), "w", options=_REPEATABLE)
            )
        self._path, self._sound = path, sound
        self._soundtrack: Soundtrack | None = None
        self._end_s = Fraction(0)

    def write(
        self,
        image: VideoFrame,
        pts: int,
        duration: int,
        clock: Clock,
        color: Color,
    ) -> None:
        """Encode a frame; all have the same size and format. pts, duration: ticks of the clock."""
        with _as_os_error():
            if self._stream is None:
                self._begin(image, clock, color)
            begins_s = pts * clock.time_base + clock.origin_s
            self._write_sound(clock, begins_s)
            self._end_s = begins_s + duration * clock.time_base
            image.pts, image.time_base = pts, clock.time_base
            self._durations[pts] = duration
            color.mark(image)
            self._encode(image)

    def finish(self, clock: Clock, *, to_the_end: bool) -> None:
        """Flush the encoder and close. to_the_end: include the source's audio up to its end."""
        with _as_os_error():
            self._write_sound(clock, None if to_the_end else self._end_s)
            if self._soundtrack is not None:
                self._soundtrack.finish()
            self._encode(None)
            self._container.close()
        self.close()

    def close(self) -> None:
        """Close the files; may be called more than once."""
        if self._soundtrack is not None:
            self._soundtrack.close()
        try:
            with _as_os_error():
                self._stack.close()
        except OSError:  # the file is abandoned, or was closed by `finish`
            return

    def _encode(self, image: VideoFrame | None) -> None:
        for packet in self._stream.encode(image):
            packet.duration = self._durations.pop(packet.pts, 0) or packet.duration
            self._container.mux(packet)

    def _begin(self, image: VideoFrame, clock: Clock, color: Color) -> None:
        encoding = self._encoding
        stream: Any = self._container.add_stream(
            encoding.codec, rate=self._rate, options=dict(encoding.options)
        )
        stream.width, stream.height = image.width, image.height
        stream.pix_fmt = image.format.name
        context = stream.codec_context
        context.thread_count = os.cpu_count() or 1
        stream.time_base = context.time_base = clock.time_base
        context.color_range, context.colorspace = color.range, color.matrix
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        if self._field_order and hasattr(context, "field_order"):  # PyAV 16 and later
            context.field_order = _FIELD_ORDERS[self._field_order]
        if clock.timecode is not None:
            stream.metadata["timecode"] = clock.timecode
        self._stream = stream
        self._soundtrack = Soundtrack(
            self._sound, self._container, self._path.suffix, self._restarts_s
        )

    def _write_sound(self, clock: Clock, end_s: Fraction | None) -> None:
        if self._soundtrack is not None:
            start_s = clock.origin_s if clock.is_part else None
            self._soundtrack.write(start_s, end_s, clock.origin_s)


class MovieReader:
    """Reads the frames of a written file in order, with alpha if it has one."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._stack = ExitStack()
        with _as_os_error():
            container: Any = self._stack.enter_context(av.open(str(path.absolute())))
        stream = container.streams.video[0]
        self.time_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        context = stream.codec_context
        if encoding.decoder:
            context = av.CodecContext.create(encoding.decoder, "r")
        self._images = _decode(container, stream, context)

    def next(self) -> VideoFrame | None:
        """Decode the next frame; None at the end, or if the data is damaged."""
        try:
            image = next(self._images, None)
        except av.error.FFmpegError:
            return None
        return None if image is None or image.is_corrupt else image

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def _decode(container: Any, stream: Any, context: Any) -> Iterator[VideoFrame]:
    for packet in container.demux(stream):
        yield from context.decode(packet)


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Convert FFmpeg's errors to `OSError`."""
    try:
        yield
    except OSError:
        raise
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
