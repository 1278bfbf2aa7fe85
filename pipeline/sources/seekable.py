"""Random access to frames of a source: a video file or images."""

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
    """A source with random access to frames by index; thread-safe."""

    @property
    def info(self) -> SourceInfo:
        """Info of the source."""
        ...

    @property
    def numbers(self) -> range:
        """Its frame indices; their number may be an estimate, see `count_known`."""
        ...

    @property
    def count_known(self) -> bool:
        """Whether the number of frames is counted, or stated by a reliable container."""
        ...

    def frame(self, index: int) -> Frame:
        """The frame with this index. Raises `UnreadableSourceError` if there is none."""
        ...

    def between(self, first: int, last: int) -> Source:
        """Source of the frames from `first` to `last`, inclusive, which reads only these."""
        ...

    def backwards(self, first: int, last: int) -> Source:
        """Source of the frames from `last` to `first`, inclusive, in reverse."""
        ...

    def close(self) -> None:
        """Close the source."""
        ...


def open_seekable(path: Path, table_path: Path | None = None) -> Seekable:
    """Open a video file, a folder of images, a pattern of image names or an image.

    table_path: file in which a video's table of frames is kept for the next time.

    Raises:
        SourceError: it is missing, or has no readable frames.
    """
    source = open_source(path)
    if isinstance(source, ImageSequence):
        return SeekableImages(source)
    assert isinstance(source, VideoFile)  # noqa: S101 - a path gives no other source
    return SeekableVideo(source, table_path)


class SeekableImages:
    """Images with random access; their numbers must be consecutive.

    Caches at most `CACHE_PIXELS` of them, but at least one.

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
                "edit them, give images with consecutive numbers."
            )
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        height, width = self.info.size_hw
        self._cache_frames = max(1, CACHE_PIXELS // (2 * height * width))  # RGB, not 4:2:0

    @property
    def count_known(self) -> bool:
        """The number of images is always known."""
        return True

    def close(self) -> None:
        """Clear the cache."""
        with self._lock:
            self._cache.clear()

    def frame(self, index: int) -> Frame:
        """The image with this index. Raises `UnreadableSourceError` if there is none."""
        with self._lock:
            if index not in self._cache:
                self._cache[index] = self._read(index)
                while len(self._cache) > self._cache_frames:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(index)
            return self._cache[index]

    def between(self, first: int, last: int) -> Source:
        """Source of the images from `first` to `last`, inclusive."""
        return replace(self._source, frame_range=FrameRange.of(first, last + 1))

    def backwards(self, first: int, last: int) -> Source:
        """Source of the images from `last` to `first`, inclusive, in reverse."""
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
