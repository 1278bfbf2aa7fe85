"""Any frame of a video by its number, without reading what lies before it.

Where a video can be entered is learnt by reading packets (not decoding them) as far as a wanted
frame, once; so a long file opens as fast as a short one.
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

CACHE_PIXELS = 1 << 25  # of decoded frames that are kept (as 4:2:0 of 8 bits 48 MiB)
_DECODE_ON = 24  # frames that are rather decoded than leapt over


class SeekableVideo:
    """A video file of which frames are asked for by number, from any thread.

    Numbers and timestamps are those that `VideoFile` gives. Holds at most `CACHE_PIXELS` of
    decoded frames, and one frame at least.

    Raises:
        SourceError: the file is missing or holds no video.
    """

    def __init__(self, source: VideoFile) -> None:
        self._source = replace(source, frame_range=FrameRange())
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._stack = ExitStack()
        self._reader: VideoReader = self._stack.enter_context(self._source.open())
        self._frames = iter(self._reader)
        self._next = 0
        height, width = self._reader.info.size_hw
        self._most_kept = max(1, CACHE_PIXELS // (height * width))
        self._entrances = _KeyframeIndex(self._source)

    @property
    def info(self) -> SourceInfo:
        """What the file says of itself; the number of frames may be an estimate."""
        return self._reader.info

    @property
    def numbers(self) -> range:
        """The numbers of its frames; of some containers how many is an estimate."""
        return range(self.info.frame_count or 1)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._kept.clear()
            self._entrances.close()
            self._stack.close()

    def frame(self, index: int) -> Frame:
        """The frame with this number. Raises `UnreadableSourceError` if there is none."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            if not 0 <= index - self._next <= _DECODE_ON:
                self._seek(index)
            found = self._advance(index)
            if found is None and self._next <= index:
                raise UnreadableSourceError(
                    f"{self._source.path} has no frame {index}; it ends with {self._next - 1}."
                )
            if found is None:  # seeking went astray: from the beginning
                self._restart()
                found = self._advance(index)
            if found is None:
                raise UnreadableSourceError(f"{self._source.path}: frame {index} is missing.")
            return found

    def between(self, first: int, last: int) -> Source:
        """The frames from `first` to `last`, both included, as a source that reads only these."""
        return _FrameSpan(self._source, range(first, last + 1), self._anchors(last))

    def backwards(self, first: int, last: int) -> Source:
        """The same frames, the last first."""
        return reverse_between(self._source, range(first, last + 1), self._anchors(last))

    def _anchors(self, index: int) -> Sequence[Anchor]:
        with self._lock:
            return self._entrances.up_to(index)

    def _seek(self, index: int) -> None:
        """Go to the nearest place before a frame, unless decoding on is as near."""
        for anchor in reversed(self._entrances.up_to(index)):
            if self._next <= index and anchor.number <= self._next:
                return
            if anchor.pts is None:
                break
            entered = self._reader.enter(anchor.number, anchor.pts)
            frame = next(entered, None)
            if frame is not None:
                self._keep(frame)
                self._frames, self._next = entered, anchor.number + 1
                return
        self._restart()

    def _restart(self) -> None:
        self._stack.close()
        self._reader = self._stack.enter_context(self._source.open())
        self._frames, self._next = iter(self._reader), 0

    def _advance(self, index: int) -> Frame | None:
        while index not in self._kept:
            frame = next(self._frames, None)
            if frame is None or frame.index > index:
                return None
            self._next = frame.index + 1
            self._keep(frame)
        return self._kept[index]

    def _keep(self, frame: Frame) -> None:
        self._kept[frame.index] = frame
        self._kept.move_to_end(frame.index)
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)


class _KeyframeIndex:
    """The keyframes of a video, found by reading packets as far as somebody asks."""

    def __init__(self, source: VideoFile) -> None:
        self._anchors = [Anchor(0, None)]
        self._container = open_container(source.path)
        self._ended = False
        self._count = 0  # packets that become frames, so far
        self._open: Anchor | None = None  # the last keyframe, whose leading pictures still come
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream):
            self._ended = True
        else:
            self._packets = self._container.demux(stream)

    def close(self) -> None:
        self._container.close()
        self._ended = True

    def up_to(self, index: int) -> list[Anchor]:
        """Where to enter at or before a frame, ascending; the first is the beginning."""
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
            if packet is not None and packet.size:  # no timestamps: only from the beginning
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
    """Successive frames of a video, entered at the nearest anchor that seeking leads to."""

    source: VideoFile
    numbers: range
    anchors: Sequence[Anchor]

    @contextmanager
    def open(self) -> Iterator[_StretchReader]:
        with self.source.open() as reader:
            yield _StretchReader(self, reader)


class _StretchReader:
    """An opened stretch: iterate once."""

    def __init__(self, stretch: _FrameSpan, reader: VideoReader) -> None:
        self.info = replace(reader.info, frame_count=len(stretch.numbers))
        self.report: SourceReport = reader.report
        self._stretch = stretch
        self._reader = reader

    def __iter__(self) -> Iterator[Frame]:
        wanted = self._stretch.numbers
        for frame in self._entered():
            if frame.index >= wanted.stop:
                return
            if frame.index >= wanted.start:
                self.report.frames += 1
                yield frame

    def _entered(self) -> Iterator[Frame]:
        for anchor in reversed(self._stretch.anchors):
            if anchor.number > self._stretch.numbers.start or anchor.pts is None:
                continue
            frames = self._reader.enter(anchor.number, anchor.pts)
            frame = next(frames, None)
            if frame is not None:
                yield frame
                yield from frames
                return
        with self._stretch.source.open() as reader:
            yield from reader
