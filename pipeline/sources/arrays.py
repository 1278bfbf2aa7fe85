"""Source of in-memory arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import TypeVar

import cv2
import numpy as np

from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.types import Frame, GrayImage, RgbImage, SizeHW, SourceInfo, SourceReport

T = TypeVar("T")


def resized(image: RgbImage, size_hw: SizeHW) -> RgbImage:
    """Resize uint8 [H, W] or [H, W, 3] to `size_hw`: by area when shrinking, else bilinearly."""
    height, width = size_hw
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A `PixelView` over RGB uint8 [H, W, 3].

    At the array's own size it returns the array itself: do not write into it.
    """

    pixels: RgbImage

    def rgb(self, size_hw: SizeHW) -> RgbImage:
        """RGB uint8 [H, W, 3] at `size_hw`."""
        return self.pixels if self.pixels.shape[:2] == size_hw else resized(self.pixels, size_hw)

    def gray(self, size_hw: SizeHW) -> GrayImage:
        """Luma uint8 [H, W] at `size_hw`."""
        return np.asarray(cv2.cvtColor(self.rgb(size_hw), cv2.COLOR_RGB2GRAY), np.uint8)


@dataclass(frozen=True, slots=True)
class ArraySource:
    """A source of RGB uint8 [H, W, 3] arrays of one size, numbered from 0.

    rate: frames per second; without it the frames have no timestamps. Arrays are copied, so an
    iterator may use their memory again for the next one.
    """

    frames: Iterable[RgbImage]
    rate: Fraction | None = None
    frame_range: FrameRange = field(default_factory=FrameRange)

    @contextmanager
    def open(self) -> Iterator[ArrayReader]:
        """Start reading; an iterator can be opened once, a list or an array again.

        Raises:
            SourceError: there are no frames, or the first is not RGB uint8 [H, W, 3].
        """
        yield ArrayReader(self)


class ArrayReader:
    """An opened `ArraySource`: iterate once.

    Iterating raises `SourceError` at an array of another dtype, shape or size.
    """

    def __init__(self, source: ArraySource) -> None:
        arrays = arrays_of(source.frames)
        first = next(arrays, None)
        if first is None:
            raise UnreadableSourceError("The iterable given as source holds no frames.")
        check_rgb(first, index=0)
        self._arrays = chain([first], arrays)
        self._range = source.frame_range.resolved(source.rate)
        total = len(source.frames) if isinstance(source.frames, Sized) else None
        self.info = SourceInfo(
            name="arrays",
            size_hw=(first.shape[0], first.shape[1]),
            time_base=1 / source.rate if source.rate else Fraction(1),
            rate=source.rate,
            frame_count=self._range.count(total, source.rate),
            indices=self._range.indices(total),
        )
        self.report = SourceReport()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._range.select(self._frames()):
            self.report.frames += 1
            yield frame

    def _frames(self) -> Iterator[Frame]:
        size_hw, time_base = self.info.size_hw, self.info.time_base
        for index, array in enumerate(self._arrays):
            check_rgb(array, index)
            if array.shape[:2] != size_hw:
                raise SourceError(
                    f"Frame {index} of the arrays is {array.shape[:2]} (height, width), but the "
                    f"first is {size_hw}; give frames of one size."
                )
            pts = index if self.info.rate else None
            view = ArrayView(array.copy())  # the frame waits; the array may be filled anew
            yield Frame(index, pts, time_base, size_hw, view)


def arrays_of(images: Iterable[T]) -> Iterator[T]:
    """Iterate over a program's images.

    Raises `SourceError` where `iter(get, None)` compares arrays with None, which NumPy refuses.
    """
    iterator = iter(images)
    while True:
        try:
            image = next(iterator)
        except StopIteration:
            return
        except ValueError as error:
            if "truth value" not in str(error):
                raise
            raise SourceError(
                "The images come from iter(get, sentinel), which compares each array with the "
                "sentinel; use a generator: `while (image := get()) is not None: yield image`."
            ) from error
        yield image


def check_rgb(array: object, index: int) -> RgbImage:
    """Return the array, frame `index`; raise `SourceError` unless it is RGB uint8 [H, W, 3]."""
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.uint8
        or array.ndim != 3
        or array.shape[2] != 3
        or 0 in array.shape
    ):
        found = (
            f"{array.dtype} {list(array.shape)}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise SourceError(
            f"Frame {index} of the arrays is {found}; frames must be RGB uint8 [height, width, 3]."
        )
    return array
