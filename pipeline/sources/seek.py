"""Random access to frames of a video, which are those that reading in order gives.

A video is decoded once, in order, as far as frames are asked for, and each frame is entered into a
table (`FrameTable`), by which it is found and recognized again. Only in a long file of a container
with a reliable index (MP4, MOV, Matroska) frames far ahead are found by counting packets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources.frame_table import FrameTable, Survey, TableReader, read_table
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.sources.packet_index import CountedReader, PacketIndex, count_packets
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.reverse import ReadFrom, reverse_between
from maskstream.pipeline.sources.video import VideoFile
from maskstream.pipeline.types import Frame, Source, SourceInfo, SourceReport

CACHE_PIXELS = 1 << 25  # of cached decoded frames (8-bit 4:2:0: 48 MiB)
# Decoded to reach a frame, before packets are counted instead: some seconds.
SURVEY_PIXELS = 1 << 31
SURVEY_BYTES = 1 << 27
_DECODE_AHEAD = 24  # frames ahead, up to which decoding is faster than seeking


class SeekableVideo:
    """A video file with random access to frames by index; thread-safe.

    Indices and timestamps are those of `VideoFile`. Caches at most `CACHE_PIXELS` of decoded
    frames, but at least one frame.

    table_path: file in which the table of frames is kept for the next time.

    Raises:
        SourceError: the file is missing or holds no video.
    """

    def __init__(self, source: VideoFile, table_path: Path | None = None) -> None:
        self._source = replace(source, frame_range=FrameRange())
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._table_path = table_path
        self._identity = identity_of(source.path)
        stored = table_path and FrameTable.load(table_path, self._identity)
        self._stack = ExitStack()
        self._survey = self._stack.enter_context(Survey(self._source, stored or FrameTable()))
        self._table = self._survey.table
        self._tables = self._stack.enter_context(TableReader(self._source, self._table))
        self._packets = PacketIndex(self._source, self._survey.reader.first_pts)
        self._stack.callback(self._packets.close)
        self._counted = self._stack.enter_context(CountedReader(self._source, self._packets))
        self._frames: Iterator[Frame] = iter(())
        self._next = 0  # number of the frame that `_frames` gives next
        stated = self._survey.reader.stated_count if self._packets.is_reliable(0) else None
        self._stated = stated is not None
        known = stated or (len(self._table) if self._table.complete else None)
        self._estimate = known or count_packets(source.path) or self.info.frame_count or 1
        self._frame_bytes = source.path.stat().st_size / self._estimate
        height, width = self.info.size_hw
        self._pixels = height * width
        self._cache_frames = max(1, CACHE_PIXELS // self._pixels)

    @property
    def info(self) -> SourceInfo:
        """Info of the file; the number of frames may be an estimate."""
        return self._survey.reader.info

    @property
    def numbers(self) -> range:
        """Its frame indices; an estimate until the last frame has been decoded once."""
        known = len(self._table)
        return range(known if self._table.complete else max(1, known, self._estimate))

    @property
    def counted(self) -> bool:
        """Whether all frames have been decoded once, so that their number is exact."""
        return self._table.complete

    @property
    def count_known(self) -> bool:
        """Whether the number of frames is counted, or stated by a reliable container."""
        return self._table.complete or self._stated

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._cache.clear()
            self._stack.close()

    def frame(self, index: int) -> Frame:
        """The frame with this index. Raises `UnreadableSourceError` if there is none."""
        with self._lock:
            found = self._cache.get(index) or self._read(index)
            if found is None:
                raise UnreadableSourceError(
                    f"{self._source.path} has no frame {index}; it ends with "
                    f"{len(self._table) - 1}."
                )
            self._cache.move_to_end(index)
            return found

    def between(self, first: int, last: int) -> Source:
        """Source of the frames from `first` to `last`, inclusive, which reads only these."""
        read = self._reads(last)
        numbers = self._existing(first, last)
        return _FrameSpan(replace(self.info, frame_count=len(numbers)), numbers, read)

    def backwards(self, first: int, last: int) -> Source:
        """Source of the frames from `last` to `first`, inclusive, in reverse."""
        read = self._reads(last)
        return reverse_between(self._source, self._existing(first, last), read)

    def _existing(self, first: int, last: int) -> range:
        """The frames of a span; the last one may have been an estimate."""
        return range(first, (min(last, self.numbers[-1]) if self.counted else last) + 1)

    def _reads(self, last: int) -> ReadFrom:
        """How frames up to `last` are read, from any of them on."""
        with self._lock:
            if self._is_far(last):
                return partial(_read_counted, self._source, self._packets)
        while self._wants_more(last):
            with self._lock:  # frame by frame, so that frames can be shown meanwhile
                self._decode_next()
        return partial(read_table, self._source, self._table)

    def _read(self, index: int) -> Frame | None:
        if index < 0:
            return None
        if self._is_far(index):
            found = self._serve(index, self._counted.frames)
            if found is not None:
                return found
        while self._wants_more(index):
            self._decode_next()
        if index in self._cache or index >= len(self._table):
            return self._cache.get(index)
        return self._serve(index, self._tables.frames)

    def _is_far(self, index: int) -> bool:
        """Whether a frame is found by counting packets."""
        ahead = index + 1 - len(self._table)
        takes_long = (
            ahead * self._pixels > SURVEY_PIXELS or ahead * self._frame_bytes > SURVEY_BYTES
        )
        return not self._table.complete and takes_long and self._packets.is_reliable(index)

    def _wants_more(self, index: int) -> bool:
        """Whether a frame is not decoded yet, or it may be the last one and show that it is."""
        known = len(self._table)
        return not self._table.complete and (known <= index or known == self._estimate)

    def _decode_next(self) -> None:
        """Decode the next frame for the first time."""
        frame = self._survey.next()
        if frame is not None:
            self._store_in_cache(frame)
        elif self._table_path is not None:
            with suppress(OSError):  # without the file it is only slower
                self._table.save(self._table_path, self._identity)

    def _serve(self, index: int, read: ReadFrom) -> Frame | None:
        """Read a frame from where the last one was, or else from its nearest keyframe."""
        if 0 <= index - self._next <= _DECODE_AHEAD:
            found = self._advance(index)
            if found is not None:
                return found
        self._frames, self._next = read(index), index
        return self._advance(index)

    def _advance(self, index: int) -> Frame | None:
        for frame in self._frames:
            self._next = frame.index + 1
            self._store_in_cache(frame)
            if frame.index >= index:
                return frame if frame.index == index else None
        return None

    def _store_in_cache(self, frame: Frame) -> None:
        self._cache[frame.index] = frame
        self._cache.move_to_end(frame.index)
        while len(self._cache) > self._cache_frames:
            self._cache.popitem(last=False)


@contextmanager
def counted_span(source: VideoFile, numbers: range) -> Iterator[Source]:
    """Source of successive frames of an undamaged video, whatever the range of `source`.

    They are found by counting packets; where that is not reliable those before them are decoded.
    Raises `SourceError`.
    """
    with source.open() as reader:
        info, first_pts = reader.info, reader.first_pts
    info = replace(info, frame_count=len(numbers), indices=numbers)
    with closing(PacketIndex(source, first_pts)) as packets:
        yield _FrameSpan(info, numbers, partial(_read_counted, source, packets))


def _read_counted(source: VideoFile, packets: PacketIndex, first: int) -> Iterator[Frame]:
    with CountedReader(source, packets) as reader:
        for frame in reader.frames(first):
            yield frame
            first += 1
    whole_source = replace(source, frame_range=FrameRange())
    with whole_source.open() as whole:  # where packets were not as counted
        yield from (frame for frame in whole if frame.index >= first)


@dataclass(frozen=True, slots=True)
class _FrameSpan:
    """Source of successive frames of a video."""

    info: SourceInfo
    numbers: range
    read: ReadFrom

    @contextmanager
    def open(self) -> Iterator[_SpanReader]:
        yield _SpanReader(self)


class _SpanReader:
    """An opened `_FrameSpan`: iterate once."""

    def __init__(self, span: _FrameSpan) -> None:
        self.info = span.info
        self.report = SourceReport()
        self._span = span

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._span.read(self._span.numbers.start):
            if frame.index >= self._span.numbers.stop:
                return
            self.report.frames += 1
            yield frame
