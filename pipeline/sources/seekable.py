"""Any frame of a source by its number: of a video file, or of images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.images import ImageSequence
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.reverse import reverse
from maskstream.pipeline.sources.seek import CACHE_PIXELS, SeekableVideo
from maskstream.pipeline.sources.video import VideoFile
from maskstream.pipeline.types import Frame, Source, SourceInfo


class Seekable(Protocol):
    """A source of which frames are asked for by number, from any thread."""

    @property
    def info(self) -> SourceInfo:
        """What the source says of itself."""
        ...

    @property
    def numbers(self) -> range:
        """The numbers of its frames, of some containers an estimate."""
        ...

    def frame(self, index: int) -> Frame:
        """The frame with this number. Raises `UnreadableSourceError` if there is none."""
        ...

    def between(self, first: int, last: int) -> Source:
        """The frames from `first` to `last`, both included, as a source that reads only these."""
        ...

    def backwards(self, first: int, last: int) -> Source:
        """The same frames, the last first."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def open_seekable(path: Path) -> Seekable:
    """Open a video file, a folder of images, a pattern of image names or an image.

    Raises:
        SourceError: it is missing, or holds nothing that can be shown.
    """
    source = open_source(path)
    if isinstance(source, ImageSequence):
        return SeekableImages(source)
    assert isinstance(source, VideoFile)  # noqa: S101 - of a path there is nothing else
    return SeekableVideo(source)


class SeekableImages:
    """Images that are read when they are asked for; they keep their numbers, which follow on.

    Holds at most `CACHE_PIXELS` of them, and one at least.

    Raises:
        SourceError: there are no images, none can be read, or numbers are missing among them.
    """

    def __init__(self, source: ImageSequence) -> None:
        self._source = replace(source, frame_range=FrameRange())
        with self._source.open() as reader:
            self.info = reader.info
        self._files = {file.index: file for file in self._source.files()}
        self.numbers = range(min(self._files), max(self._files) + 1)
        if len(self.numbers) != len(self._files):
            missing = next(n for n in self.numbers if n not in self._files)
            raise UnreadableSourceError(
                f"{source.path} has no image number {missing}, but some before and after it; to "
                "edit them, give images whose numbers follow on each other."
            )
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        height, width = self.info.size_hw
        self._most_kept = max(1, CACHE_PIXELS // (2 * height * width))  # RGB, not 4:2:0

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._kept.clear()

    def frame(self, index: int) -> Frame:
        """The image with this number. Raises `UnreadableSourceError` if there is none."""
        with self._lock:
            if index not in self._kept:
                self._kept[index] = self._read(index)
                while len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(index)
            return self._kept[index]

    def between(self, first: int, last: int) -> Source:
        """The images from `first` to `last`, both included."""
        return replace(self._source, frame_range=FrameRange.of(first, last + 1))

    def backwards(self, first: int, last: int) -> Source:
        """The same images, the last first."""
        return reverse(self.between(first, last), last)

    def _read(self, index: int) -> Frame:
        file = self._files.get(index)
        if file is None:
            raise UnreadableSourceError(f"{self._source.path} has no image number {index}.")
        with replace(self._source, path=file.path).open() as reader:
            frame = next(iter(reader))
        if frame.size_hw != self.info.size_hw:
            raise UnreadableSourceError(
                f"{file.path} is {frame.size_hw} pixels (height, width), but the first image is "
                f"{self.info.size_hw}; give images of one size."
            )
        return replace(frame, index=index, pts=file.pts, time_base=file.time_base)
