"""Random access to frames of a video.

Seek points are found by demuxing (not decoding) once as far as a requested frame, so that a long
file opens as fast as a short one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import av.error
from av.video.stream import VideoStream

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.reverse import Anchor, reverse_between
from maskstream.pipeline.sources.video import VideoFile, VideoReader, open_container
from maskstream.pipeline.types import Frame, Source, SourceInfo, SourceReport

CACHE_PIXELS = 1 << 25  # of cached decoded frames (8-bit 4:2:0: 48 MiB)
_DECODE_AHEAD = 24  # frames ahead, up to which decoding is faster than seeking


class SeekableVideo:
    """A video file with random access to frames by index; thread-safe.

    Indices and timestamps are those of `VideoFile`. Caches at most `CACHE_PIXELS` of decoded
    frames, but at least one frame.

    Raises:
        SourceError: the file is missing or holds no video.
    """

    def __init__(self, source: VideoFile) -> None:
        self._source = replace(source, frame_range=FrameRange())
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._stack = ExitStack()
        self._reader: VideoReader = self._stack.enter_context(self._source.open())
        self._frames = iter(self._reader)
        self._next = 0
        height, width = self._reader.info.size_hw
        self._cache_frames = max(1, CACHE_PIXELS // (height * width))
        self._keyframes = _KeyframeIndex(self._source)

    @property
    def info(self) -> SourceInfo:
        """Info of the file; the number of frames may be an estimate."""
        return self._reader.info

    @property
    def numbers(self) -> range:
        """Its frame indices; for some containers their number is an estimate."""
        return range(self.info.frame_count or 1)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._cache.clear()
            self._keyframes.close()
            self._stack.close()

    def frame(self, index: int) -> Frame:
        """The frame with this index. Raises `UnreadableSourceError` if there is none."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            if not 0 <= index - self._next <= _DECODE_AHEAD:
                self._seek(index)
            found = self._advance(index)
            if found is None and self._next <= index:
                raise UnreadableSourceError(
                    f"{self._source.path} has no frame {index}; it ends with {self._next - 1}."
                )
            if found is None:  # seeking missed the frame: decode from the start
                self._restart()
                found = self._advance(index)
            if found is None:
                raise UnreadableSourceError(f"{self._source.path}: frame {index} is missing.")
            return found

    def between(self, first: int, last: int) -> Source:
        """Source of the frames from `first` to `last`, inclusive, which reads only these."""
        return _FrameSpan(self._source, range(first, last + 1), self._anchors(last))

    def backwards(self, first: int, last: int) -> Source:
        """Source of the frames from `last` to `first`, inclusive, in reverse."""
        return reverse_between(self._source, range(first, last + 1), self._anchors(last))

    def _anchors(self, index: int) -> Sequence[Anchor]:
        with self._lock:
            return self._keyframes.up_to(index)

    def _seek(self, index: int) -> None:
        """Seek to the nearest anchor before a frame, unless decoding on from here is as near."""
        for anchor in reversed(self._keyframes.up_to(index)):
            if self._next <= index and anchor.number <= self._next:
                return
            if anchor.pts is None:
                break
            entered = self._reader.enter(anchor.number, anchor.pts)
            frame = next(entered, None)
            if frame is not None:
                self._store_in_cache(frame)
                self._frames, self._next = entered, anchor.number + 1
                return
        self._restart()

    def _restart(self) -> None:
        self._stack.close()
        self._reader = self._stack.enter_context(self._source.open())
        self._frames, self._next = iter(self._reader), 0

    def _advance(self, index: int) -> Frame | None:
        while index not in self._cache:
            frame = next(self._frames, None)
            if frame is None or frame.index > index:
                return None
            self._next = frame.index + 1
            self._store_in_cache(frame)
        return self._cache[index]

    def _store_in_cache(self, frame: Frame) -> None:
        self._cache[frame.index] = frame
        self._cache.move_to_end(frame.index)
        while len(self._cache) > self._cache_frames:
            self._cache.popitem(last=False)


class _KeyframeIndex:
    """Index of video keyframes, built by demuxing as far as it is needed."""

    def __init__(self, source: VideoFile) -> None:
        self._anchors = [Anchor(0, None)]
        self._container = open_container(source.path)
        self._ended = False
        self._count = 0  # packets so far that become frames
        self._open: Anchor | None = None  # the last keyframe, whose leading frames may follow
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream):
            self._ended = True
        else:
            self._packets = self._container.demux(stream)

    def close(self) -> None:
        self._container.close()
        self._ended = True

    def up_to(self, index: int) -> list[Anchor]:
        """Anchors at or before a frame, ascending; the first is the start of the file."""
        while not self._ended and self._count <= index + 1:
            self._read_one()
        found = self._anchors + ([self._open] if self._open is not None else [])
        return [anchor for anchor in found if anchor.number <= index]

    def _read_one(self) -> None:
        try:
            packet = next(self._packets, None)
        except av.error.FFmpegError:
            packet = None
        if packet is None or packet.pts is None:
            self._ended = True
            if packet is not None and packet.size:  # no timestamps: only the start of the file
                self._anchors, self._open = self._anchors[:1], None
            return
        if packet.is_discard:
            return
        if packet.is_keyframe:
            if self._open is not None:
                self._anchors.append(self._open)
            self._open = Anchor(self._count, packet.pts)
        elif self._open is not None and packet.pts < (self._open.pts or 0):
            self._open = self._open._replace(number=self._open.number + 1)
        self._count += 1


@dataclass(frozen=True, slots=True)
class _FrameSpan:
    """Source of successive frames of a video, read from the nearest anchor."""

    source: VideoFile
    numbers: range
    anchors: Sequence[Anchor]

    @contextmanager
    def open(self) -> Iterator[_SpanReader]:
        with self.source.open() as reader:
            yield _SpanReader(self, reader)


class _SpanReader:
    """An opened `_FrameSpan`: iterate once."""

    def __init__(self, span: _FrameSpan, reader: VideoReader) -> None:
        self.info = replace(reader.info, frame_count=len(span.numbers))
        self.report: SourceReport = reader.report
        self._span = span
        self._reader = reader

    def __iter__(self) -> Iterator[Frame]:
        wanted = self._span.numbers
        for frame in self._from_anchor():
            if frame.index >= wanted.stop:
                return
            if frame.index >= wanted.start:
                self.report.frames += 1
                yield frame

    def _from_anchor(self) -> Iterator[Frame]:
        for anchor in reversed(self._span.anchors):
            if anchor.number > self._span.numbers.start or anchor.pts is None:
                continue
            frames = self._reader.enter(anchor.number, anchor.pts)
            frame = next(frames, None)
            if frame is not None:
                yield frame
                yield from frames
                return
        with self._span.source.open() as reader:
            yield from reader
