"""Images with ground-truth masks: the interface between data sets and the evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.types import RgbImage, SizeHW

BoolMap = npt.NDArray[np.bool_]
T = TypeVar("T")

OBJECTS = 8
"""Maximum objects per image; if there are more, a subset is drawn with a fixed seed."""

SMALLEST_SHARE = 0.001
"""Objects that cover a smaller share of their image are not evaluated."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class Example:
    """An image and its evaluated objects. masks: bool [P, H, W]; P may be 0."""

    rgb: RgbImage
    masks: BoolMap


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and all its objects, none drawn or left out for its size.

    masks: bool [P, H, W], none empty; P may be 0. areas: float64 [P] as annotated, in pixels.
    """

    rgb: RgbImage
    masks: BoolMap
    areas: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rgb: RgbImage, masks: BoolMap, areas: npt.NDArray[np.float64]) -> AnnotatedImage:
        """Leave out what cannot be prompted: empty masks, and areas below a pixel."""
        kept = (areas >= 1) & masks.any((1, 2))
        return cls(rgb, masks[kept], areas[kept])


class LabeledItem(Protocol):
    """An image with masks that is not read yet."""

    def size_hw(self) -> SizeHW:
        """Its height and width, pixels. Raises `SourceError`."""
        ...

    def load(self) -> Example:
        """Read it. Raises `SourceError`."""
        ...

    def load_all(self) -> AnnotatedImage:
        """Read it with all its objects. Raises `SourceError`."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one source."""

    name: str
    items: tuple[LabeledItem, ...]


def draw_objects(areas: npt.ArrayLike, pixels: int, image: Path) -> npt.NDArray[np.intp]:
    """Ascending indices of the objects to evaluate.

    areas, pixels: of the objects and of the image. image: the choice depends on its name alone, so
    that it is the same in any selection of images.
    """
    eligible = np.flatnonzero(np.asarray(areas) >= SMALLEST_SHARE * pixels)
    rng = np.random.default_rng((_SEED, zlib.crc32(image.stem.encode())))
    return np.sort(rng.permutation(eligible)[:OBJECTS])


def spread(items: Sequence[T], count: int | None) -> tuple[T, ...]:
    """At most `count` items (None: all), evenly spread."""
    if count is None or count >= len(items):
        return tuple(items)
    return tuple(items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count))


def shape_order(sizes_hw: Iterable[SizeHW]) -> list[int]:
    """Indices of images by height / width, those of the same shape in their own order.

    Images that a network sees at the same input size then follow each other, and a segmenter is
    opened once for each input size (`SegmenterPool`).
    """
    shapes = [height / width for height, width in sizes_hw]
    return sorted(range(len(shapes)), key=shapes.__getitem__)


def read_rgb(file: Path) -> RgbImage:
    """Read an image as RGB uint8 [H, W, 3]. Raises `SourceError`."""
    bgr = np.asarray(read_pixels(file, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_pixels(file: Path, mode: int) -> npt.NDArray[np.generic]:
    """Read an image with OpenCV in an `imdecode` mode. Raises `SourceError`."""
    if not file.is_file():
        raise SourceNotFoundError(f"there is no image {file}")
    encoded = np.frombuffer(file.read_bytes(), np.uint8)
    pixels = cv2.imdecode(encoded, mode) if encoded.size else None
    if pixels is None:
        raise UnreadableSourceError(f"{file} cannot be decoded as an image")
    return np.asarray(pixels)
