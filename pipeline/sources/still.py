"""One image as programs have it: an array of any kind, a PIL image, a tensor or a path."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.sources.checks import check_size, not_permitted
from maskstream.pipeline.sources.images import decode_image
from maskstream.pipeline.types import Frame, RgbImage

StillImage = str | Path | Frame | npt.ArrayLike
"""What is taken as one image, see `rgb_of`."""

_CHANNELS = (1, 3, 4)
_TAKEN = (
    "give a path, a PIL image, or an array [height, width] or [height, width, 1, 3 or 4] of uint8, "
    "uint16, bool, or floats from 0 to 1"
)


def as_frame(image: StillImage) -> Frame:
    """One image (`rgb_of`) as a frame with index 0 and no timestamp; a `Frame` stays as it is."""
    if isinstance(image, Frame):
        return image
    rgb = rgb_of(image)
    size_hw = (rgb.shape[0], rgb.shape[1])
    return Frame(0, None, Fraction(1), size_hw, ArrayView(rgb))


def rgb_of(image: str | Path | npt.ArrayLike) -> RgbImage:
    """Convert one image to RGB uint8 [H, W, 3].

    A path is read, and EXIF orientation is applied. A PIL image, a tensor on the CPU and everything
    else that NumPy takes as an array: gray [H, W], or channels last or else first, of which there
    are 1 (gray), 3 (RGB) or 4 (RGBA; transparency is dropped). The whole range of the dtype is
    black to white: uint8 as it is, of uint16 the upper eight bits, floats from 0 to 1, bool. Other
    values are refused, because their white is not known.

    Raises:
        SourceNotFoundError: there is no such file.
        SourceError: it is not such an image.
    """
    if isinstance(image, str | Path):
        return _read(Path(image))
    pixels = _with_channels(_array(image))
    check_size("The image", (pixels.shape[0], pixels.shape[1]))
    eight_bits = _eight_bits(pixels)
    if eight_bits.shape[2] == 1:
        return np.repeat(eight_bits, 3, axis=2)
    return np.ascontiguousarray(eight_bits[..., :3])


def _read(path: Path) -> RgbImage:
    try:
        rgb = decode_image(path)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no image {path}.") from error
    except PermissionError as error:
        raise UnreadableSourceError(not_permitted(path)) from error
    except (OSError, cv2.error) as error:
        raise UnreadableSourceError(f"The image {path} cannot be read: {error}.") from error
    if rgb is None:
        raise UnreadableSourceError(
            f"{path} cannot be decoded as an image; it is damaged or not one."
        )
    check_size(str(path), (rgb.shape[0], rgb.shape[1]))
    return rgb


def _array(image: Any) -> npt.NDArray[Any]:
    if getattr(image, "mode", None) in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "LA"):
        image = image.convert("RGB")  # PIL, whose numbers in these modes are not gray, RGB or RGBA
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"The image is {type(image).__name__}, not an array ({error}); {_TAKEN}."
        ) from error


def _with_channels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The pixels as [H, W, C]. Raises `SourceError`."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS and pixels.shape[0] in _CHANNELS:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS or pixels.size == 0:
        raise SourceError(f"The image is {pixels.dtype} {list(pixels.shape)}; {_TAKEN}.")
    return pixels


def _eight_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The pixels at 0 to 255. Raises `SourceError`."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return np.asarray(pixels >> 8, np.uint8)
    if pixels.dtype == np.bool_:
        return np.asarray(255 * pixels, np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise SourceError(f"The image is {pixels.dtype}, whose white is not known; {_TAKEN}.")
    least, most = float(pixels.min()), float(pixels.max())
    if not (least >= 0 and most <= 1):  # also not a number
        raise SourceError(
            f"The image is {pixels.dtype} with values from {least:g} to {most:g}, but floats are 0 "
            "(black) to 1 (white); divide them by their white, or convert them to uint8."
        )
    return np.asarray(np.rint(255 * pixels), np.uint8)
