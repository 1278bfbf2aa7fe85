"""Images of masks as tools write them: gray, palette, color, with alpha, of any bit depth."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.sources.film_images import FILM_SUFFIXES, read_film_channels
from maskstream.pipeline.types import LabelMap

Opacity = npt.NDArray[np.float32]
_INDEXED = "pal8"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NOISE = 16 / 255  # of white; what compression and cameras add to black or take from white
_FEW = 64  # values of a label map; a matte with soft edges has more

Meaning = Literal["labels", "matte", "both"]
"""What the values of an image are: ids of objects, opacity of one, or possibly either."""


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A decoded image of masks.

    values: gray values or palette indices, uint8 or uint16 [H, W]; None for color images. rgb: of
    palette and color images, uint8 or uint16 [H, W, 3]. alpha: opacity 0 to 1, if there is an alpha
    channel that is not constant. channels: of the file; RGB whose colors are equal is gray, too.
    """

    file: Path
    values: npt.NDArray[Any] | None
    rgb: npt.NDArray[Any] | None
    alpha: Opacity | None
    indexed: bool = False
    channels: int = 1

    @cached_property
    def opacity(self) -> Opacity:
        """The image as a matte, 0 to 1: its alpha, or else its brightness by its colors.

        An image of zeros and ones is as one of black and white.
        """
        if self.alpha is not None:
            return self.alpha
        if self.rgb is not None:
            return np.asarray(self.rgb.astype(np.float32) @ _LUMA / _white(self.rgb), np.float32)
        assert self.values is not None  # noqa: S101
        white = 1 if self.values.max() <= 1 else _white(self.values)
        return np.asarray(self.values / np.float32(white), np.float32)

    @property
    def meaning(self) -> Meaning:
        """What the values are, as far as the image shows it."""
        if self.alpha is not None:
            return "matte"
        if self.values is None:
            return "labels" if len(self.colors) <= _FEW else "matte"
        if self.indexed:
            assert self.rgb is not None  # noqa: S101
            is_gray = (self.rgb == self.rgb[..., :1]).all()
            return "matte" if is_gray and self.values.max() <= 1 else "labels"
        found = np.unique(self.values)
        if found[-1] <= 1:
            return "labels"
        share = found / _white(self.values)
        near_white = share >= 1 - _NOISE
        if near_white.any() and ((share <= _NOISE) | near_white).all():
            return "matte"
        if len(found) > _FEW:
            return "matte"
        sure = found[-1] < _FEW or self.values.dtype == np.uint16
        return "labels" if sure else "both"

    @cached_property
    def colors(self) -> npt.NDArray[np.uint32]:
        """The distinct colors of a color image, 24 bits red, green, blue, ascending."""
        return np.unique(self.packed)

    @property
    def packed(self) -> npt.NDArray[np.uint32]:
        """Each pixel's color as 24 bits, uint32 [H, W]; transparent pixels are black."""
        assert self.rgb is not None  # noqa: S101
        shift = 8 if self.rgb.dtype == np.uint16 else 0
        rgb = (self.rgb >> shift).astype(np.uint32)
        packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        if self.alpha is not None:
            packed[self.alpha == 0] = 0
        return np.asarray(packed, np.uint32)

    @property
    def is_noisy(self) -> bool:
        """Whether a matte has values between black and white."""
        opacity = self.opacity
        return bool(((opacity > 0) & (opacity < 1)).any())


def read_mask_image(file: Path) -> MaskImage:
    """Read an image of masks: PNG, JPEG, TIFF, BMP, WebP, or one of film (OpenImageIO).

    Raises:
        SourceNotFoundError: there is no such file.
        UnreadableSourceError: it is not an image, or has an unknown number of channels.
    """
    if not file.is_file():
        raise SourceNotFoundError(f"there is no image {file}")
    if file.suffix.lower() in FILM_SUFFIXES:
        channels = read_film_channels(file)
        if channels is None:
            raise UnreadableSourceError(f"{file} cannot be decoded as an image")
        return _of_channels(file, np.rint(np.clip(channels, 0, 1) * 65535).astype(np.uint16))
    encoded = file.read_bytes()
    indexed = _indexed(file, encoded)
    if indexed is not None:
        return indexed
    read = np.frombuffer(encoded, np.uint8)
    pixels: Any = cv2.imdecode(read, cv2.IMREAD_UNCHANGED) if encoded else None
    if pixels is None:
        raise UnreadableSourceError(f"{file} cannot be decoded as an image")
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)
    if pixels.ndim == 3 and pixels.shape[2] >= 3:  # OpenCV's order
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return _of_channels(file, pixels if pixels.ndim == 3 else pixels[..., None])


def read_mask(file: Path) -> npt.NDArray[np.bool_]:
    """Read the mask of one object, bool [H, W]: what is opaque, bright, or not background.

    An image of one value beside 0 is a mask whatever the value, such as a label map of one object.

    Raises:
        SourceNotFoundError, UnreadableSourceError: as `read_mask_image`.
    """
    image = read_mask_image(file)
    values = image.values
    if image.alpha is None and values is not None:
        found = np.unique(values)
        first_is_dark = not image.indexed or image.opacity[values == found[0]].max() < 1
        is_one = len(found) <= 2 and found[0] == 0 and first_is_dark
        if is_one or (image.meaning == "labels" and not image.indexed):
            return np.asarray(values != 0, np.bool_)
    return np.asarray(image.opacity > 0.5, np.bool_)


def read_label_map(file: Path) -> LabelMap:
    """Read a label map whose gray values or palette indices are labels, uint16 [H, W].

    Raises:
        SourceNotFoundError: there is no such file.
        UnreadableSourceError: it is not an image, or a color image.
    """
    if not file.is_file():
        raise SourceNotFoundError(f"there is no label map {file}")
    image = read_mask_image(file)
    if image.values is None or image.channels > 1:
        raise UnreadableSourceError(
            f"{file} is a color image; a label map is an indexed or gray PNG whose values are "
            "the objects' ids"
        )
    return image.values.astype(np.uint16)


def _of_channels(file: Path, pixels: npt.NDArray[Any]) -> MaskImage:
    """An image of 1 to 4 channels [H, W, C]; equal colors are gray."""
    count = pixels.shape[2]
    if count > 4:
        raise UnreadableSourceError(f"{file} has {count} channels; masks have up to four")
    alpha = None
    if count in (2, 4):
        opacity = pixels[..., -1] / np.float32(_white(pixels))
        alpha = None if opacity.min() == opacity.max() else np.asarray(opacity, np.float32)
    colors = pixels[..., :3] if count > 2 else pixels[..., :1]
    spread = np.ptp(colors, axis=2).max() if count > 2 else 0  # JPEG colors gray a little
    if spread <= _NOISE * _white(pixels):
        gray = colors[..., 0] if count < 3 or spread == 0 else np.median(colors, axis=2)
        values = np.ascontiguousarray(gray, pixels.dtype)
        return MaskImage(file, values, None, alpha, channels=count)
    return MaskImage(file, None, colors, alpha, channels=count)


def _indexed(file: Path, encoded: bytes) -> MaskImage | None:
    """A palette image by FFmpeg, as OpenCV would replace an index by its color; else None."""
    if not encoded.startswith(b"\x89PNG"):
        return None
    try:
        with av.open(io.BytesIO(encoded), "r") as container:
            image = next(container.decode(video=0))
            if image.format.name != _INDEXED:
                return None
            indices, argb = image.to_ndarray()
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        raise UnreadableSourceError(f"{file} cannot be decoded as an image") from error
    opacity = argb[indices, 0] / np.float32(255)
    alpha = None if opacity.min() == opacity.max() else opacity
    return MaskImage(file, indices, argb[indices, 1:], alpha, indexed=True)


def _white(pixels: npt.NDArray[Any]) -> int:
    return 255 if pixels.dtype == np.uint8 else 65535
