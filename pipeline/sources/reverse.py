"""Reversed sources: the same frames in descending order, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import ArraySource, ArrayView
from maskstream.pipeline.sources.checks import count_damage
from maskstream.pipeline.sources.frame_table import Survey, read_table
from maskstream.pipeline.sources.images import ImageFile, ImageSequence
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.video import VideoFile
from maskstream.pipeline.types import Frame, RgbImage, Source, SourceInfo, SourceReport

# Limits of the decoded frames of a video in memory (8-bit 4:2:0: 96 MiB), at least one frame.
CHUNK_FRAMES = 128
CHUNK_PIXELS = 1 << 26


def check_reversible(source: Source) -> None:
    """Raise `SourceError` if a source cannot be read again in reverse."""
    if isinstance(source, ImageSequence):
        return
    if isinstance(source, VideoFile):
        if source.path.is_file() or not source.path.exists():  # opening reports a missing file
            return
        what = f"{source.path} is not a regular file"
    elif isinstance(source, ArraySource):
        if isinstance(source.frames, Sequence | np.ndarray):
            return
        what = "these arrays can be read only once"
    else:
        what = "this source is live"
    raise SourceError(
        f"The backward pass reads the frames again in reverse, but {what}; "
        "record it to a file first, or run without --backward."
    )


def reverse(source: Source, last: int) -> Source:
    """Source of the frames from index `last` back to the first of a source's range.

    Indices, timestamps and pixels are unchanged. A video is decoded once up to `last` to find seek
    points, which takes time.

    Raises:
        SourceError: the source cannot be read, or not in reverse.
        ConfigError: its range has no frames.
    """
    check_reversible(source)
    if isinstance(source, VideoFile):
        return _survey(source, last)
    if isinstance(source, ImageSequence):
        return _ReversedImages(source, [f for f in source.files() if f.index <= last])
    assert isinstance(source, ArraySource)  # noqa: S101 - nothing else is reversible
    return _ReversedArrays(source, last)


@dataclass(slots=True)
class _ReverseReader:
    """An opened reversed source: iterate once."""

    info: SourceInfo
    frames: Iterator[Frame]
    report: SourceReport = field(default_factory=SourceReport)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.frames:
            self.report.frames += 1
            yield frame


@dataclass(frozen=True, slots=True)
class _ReversedArrays:
    source: ArraySource
    last: int

    @contextmanager
    def open(self) -> Iterator[_ReverseReader]:
        with self.source.open() as reader:
            info = reader.info
        arrays = self.source.frames
        assert isinstance(arrays, Sequence | np.ndarray)  # noqa: S101 - checked by `reverse`
        frames = (_array_frame(array, index, info) for index, array in enumerate(arrays))
        chosen = [f.index for f in self.source.frame_range.select(frames) if f.index <= self.last]
        yield _ReverseReader(
            replace(info, frame_count=len(chosen)),
            (_array_frame(arrays[index], index, info) for index in reversed(chosen)),
        )


def _array_frame(array: RgbImage, index: int, info: SourceInfo) -> Frame:
    pts = index if info.rate else None
    return Frame(index, pts, info.time_base, info.size_hw, ArrayView(array))


@dataclass(frozen=True, slots=True)
class _ReversedImages:
    source: ImageSequence
    files: list[ImageFile]

    @contextmanager
    def open(self) -> Iterator[_ReverseReader]:
        with self.source.open() as reader:
            info = replace(reader.info, frame_count=len(self.files))
        report = SourceReport()
        yield _ReverseReader(info, self._frames(report), report)

    def _frames(self, report: SourceReport) -> Iterator[Frame]:
        for file in reversed(self.files):
            single = replace(self.source, path=file.path, frame_range=FrameRange())
            try:
                with single.open() as reader:
                    for frame in reader:
                        yield replace(frame, index=file.index, pts=file.pts)
            except UnreadableSourceError:
                count_damage(report, f"{file.path.name} cannot be read")


ReadFrom = Callable[[int], Iterator[Frame]]
"""Reads the frames of a video from the one with this index on."""


@dataclass(frozen=True, slots=True)
class _ReversedVideo:
    """Decodes chunks of frames forward and yields each in reverse."""

    source: VideoFile
    numbers: range
    read: ReadFrom

    @contextmanager
    def open(self) -> Iterator[_ReverseReader]:
        with self.source.open() as reader:
            info = replace(reader.info, frame_count=len(self.numbers))
        yield _ReverseReader(info, self._frames(info))

    def _frames(self, info: SourceInfo) -> Iterator[Frame]:
        height, width = info.size_hw
        chunk = max(1, min(CHUNK_FRAMES, CHUNK_PIXELS // (height * width)))
        for end in range(len(self.numbers), 0, -chunk):
            frames_held = self._decode(self.numbers[max(0, end - chunk) : end])
            while frames_held:
                yield frames_held.pop()

    def _decode(self, numbers: range) -> list[Frame]:
        frames_held = []
        for frame in self.read(numbers[0]):
            if frame.index in numbers:
                frames_held.append(frame)
            if frame.index >= numbers[-1]:
                return frames_held
        raise UnreadableSourceError(
            f"{self.source.path} ends before frame {numbers[-1]} when it is read again; "
            "it is being changed, or it is damaged."
        )


def _survey(source: VideoFile, last: int) -> _ReversedVideo:
    """Decode a video up to frame `last` to find the frames of its range, and again each of them."""
    first = final = None
    with Survey(source) as survey:
        for frame in source.frame_range.select(iter(survey.next, None)):
            if frame.index > last:
                break
            first, final = frame.index if first is None else first, frame.index
        table = survey.table
    numbers = range(first, final + 1) if first is not None and final is not None else range(0)
    read = partial(read_table, source, table)
    return _ReversedVideo(source, numbers[:: source.frame_range.stride], read)


def reverse_between(source: VideoFile, numbers: range, read: ReadFrom) -> Source:
    """Source of a video's frames with these indices in reverse."""
    return _ReversedVideo(source, numbers, read)
