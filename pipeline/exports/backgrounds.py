"""Backgrounds of composites: a color, an image, or the blurred frame."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.color import Color, image_from, planes, resize_alpha
from maskstream.pipeline.exports.edges import Alpha
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.arrays import resized
from maskstream.pipeline.sources.images import SUFFIXES as IMAGE_SUFFIXES
from maskstream.pipeline.types import RgbImage, SizeHW

Rgb = tuple[int, int, int]

GREEN_SCREEN: Rgb = (0, 177, 64)  # #00B140, the usual chroma key green
_NAMED: dict[str, Rgb] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "green": GREEN_SCREEN,
    "blue": (0, 71, 187),
}
_BLUR = "blur"
_BLURS = 36  # default blur radius: the image's shorter side divided by this
_LEAST_WEIGHT = 1e-3


class Background(Protocol):
    """Provides the background of each frame, in the frame's own pixel format."""

    def behind(self, image: VideoFrame, matte: Alpha, color: Color) -> VideoFrame:
        """The background of a frame whose objects have this opacity [H, W]."""
        ...


def background_of(text: str | None, size_hw: SizeHW) -> Background:
    """Parse a background: `#00b140`, a color name, an image path, `blur` or `blur:12` (pixels).

    Raises:
        ConfigError: it is none of these.
        SourceError: the image cannot be read.
    """
    if text is None:
        raise ConfigError("This format needs --background: a color, an image, or blur.")
    name = text.strip().lower()
    if name in _NAMED:
        return StaticBackground(_NAMED[name])
    if name.startswith("#"):
        return StaticBackground(_hexadecimal(text))
    if name == _BLUR or name.startswith(f"{_BLUR}:"):
        return Blurred(_pixels(text, name.removeprefix(_BLUR).removeprefix(":"), size_hw))
    path = Path(text)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        with open_source(path).open() as reader:
            return StaticBackground(_covering(next(iter(reader)).rgb(), size_hw))
    raise ConfigError(
        f"{text!r} is not a background: give a color ({', '.join(_NAMED)} or #rrggbb), an image "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}), or blur:PIXELS."
    )


class StaticBackground:
    """A color, or an RGB image uint8 [H, W, 3] of the video's size."""

    def __init__(self, pixels: Rgb | RgbImage) -> None:
        self._pixels = pixels
        self._made: VideoFrame | None = None

    def behind(self, image: VideoFrame, matte: Alpha, color: Color) -> VideoFrame:
        """The same background for every frame."""
        if self._made is None:
            height, width = image.height, image.width
            full = np.empty((height, width, 3), np.uint8)
            full[:] = (
                self._pixels if isinstance(self._pixels, tuple) else self._pixels[:height, :width]
            )
            self._made = image_from(full, image.format.name, color)
        return self._made


class Blurred:
    """The blurred frame without the objects, which would glow around their edges.

    Gaussian blur of each plane, weighted by the background's opacity.
    """

    def __init__(self, sigma_px: float) -> None:
        self._sigma_px = sigma_px

    def behind(self, image: VideoFrame, matte: Alpha, color: Color) -> VideoFrame:
        """The blurred frame."""
        made = VideoFrame(image.width, image.height, image.format.name)
        for source, target in zip(planes(image), planes(made), strict=True):
            sigma = self._sigma_px * target.shape[1] / image.width
            target[:] = np.rint(
                _blurred(source.astype(np.float32), resize_alpha(matte, source), sigma)
            )
        return made


def _blurred(plane: Alpha, matte: Alpha, sigma_px: float) -> Alpha:
    """Blur at a reduced size, where the same blur is cheap."""
    smaller = max(1, int(sigma_px / 2))
    size = max(1, plane.shape[1] // smaller), max(1, plane.shape[0] // smaller)

    def blur(values: Alpha) -> Alpha:
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(small, (0, 0), sigma_px / smaller), np.float32)

    weight = (1 - matte).astype(np.float32) + np.float32(_LEAST_WEIGHT)
    ground = blur(plane * weight) / blur(weight)
    full = cv2.resize(ground, plane.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(full, plane.min(), plane.max())


def _hexadecimal(text: str) -> Rgb:
    digits = text.strip().removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise ConfigError(f"{text!r} is not a color; write #rrggbb, such as #00b140.") from None
    return red, green, blue


def _pixels(text: str, number: str, size_hw: SizeHW) -> float:
    try:
        sigma = float(number) if number else max(1.0, min(size_hw) / _BLURS)
    except ValueError:
        sigma = 0.0
    if not 0 < sigma <= max(size_hw):
        raise ConfigError(f"{text!r} is not a blur; write blur, or blur:12 for 12 pixels.")
    return sigma


def _covering(rgb: RgbImage, size_hw: SizeHW) -> npt.NDArray[np.uint8]:
    """Scale an image to cover `size_hw`, cropped to the center."""
    height, width = size_hw
    scale = max(height / rgb.shape[0], width / rgb.shape[1])
    scaled_hw = max(height, round(rgb.shape[0] * scale)), max(width, round(rgb.shape[1] * scale))
    scaled = resized(rgb, scaled_hw)
    top, left = (scaled_hw[0] - height) // 2, (scaled_hw[1] - width) // 2
    return scaled[top : top + height, left : left + width]
