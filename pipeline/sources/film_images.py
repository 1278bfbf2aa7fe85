"""Images of film and compositing (EXR, DPX, Cineon, TGA, HDR), read by OpenImageIO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import MissingExtraError
from maskstream.pipeline.types import RgbImage

FILM_SUFFIXES = frozenset({".exr", ".dpx", ".cin", ".tga", ".hdr"})
_SCENE_LINEAR = frozenset({".exr", ".hdr"})


def read_film_image(path: Path) -> RgbImage | None:
    """Read RGB uint8 [H, W, 3] of the display window; None if it cannot be decoded.

    Scene-linear images (EXR, HDR) get the sRGB curve, and are clipped at white; other ones keep
    their values. The first three channels are red, green and blue; one or two are gray.

    Raises:
        MissingExtraError: OpenImageIO is not installed.
    """
    found = read_film_channels(path)
    if found is None:
        return None
    rgb = found[..., :3] if found.shape[2] > 2 else np.repeat(found[..., :1], 3, axis=2)
    if path.suffix.lower() in _SCENE_LINEAR:
        rgb = _srgb(rgb)
    return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


def read_film_channels(path: Path) -> npt.NDArray[np.float32] | None:
    """Read all channels, float32 [H, W, C], of the display window; None if it cannot be decoded.

    Raises:
        MissingExtraError: OpenImageIO is not installed.
    """
    image = _open(path)
    return None if image is None else _pixels(image)


def _open(path: Path) -> Any:
    """The image's buffer, None if it cannot be decoded. Raises `MissingExtraError`."""
    try:
        import OpenImageIO
    except ImportError as error:
        raise MissingExtraError(
            f"{path.suffix} images are read by OpenImageIO: install maskstream[editors]."
        ) from error
    image: Any = OpenImageIO.ImageBuf(str(path))
    return None if image.has_error else image


def _pixels(image: Any) -> npt.NDArray[np.float32] | None:
    pixels = image.get_pixels("float", image.roi_full)
    return None if pixels is None else np.nan_to_num(np.asarray(pixels, np.float32))


def _srgb(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sRGB curve of linear light (IEC 61966-2-1)."""
    clipped = np.clip(linear, 0, 1)
    curve = 1.055 * np.power(clipped, 1 / 2.4) - 0.055
    return np.where(clipped <= 0.0031308, 12.92 * clipped, curve).astype(np.float32)


def read_film_layers(path: Path) -> dict[str, npt.NDArray[np.float32]] | None:
    """Channels by name, float32 [H, W], layers as `NAME.R`; None if it cannot be decoded.

    Raises:
        MissingExtraError: OpenImageIO is not installed.
    """
    image = _open(path)
    pixels = None if image is None else _pixels(image)
    if pixels is None:
        return None
    names = image.spec().channelnames
    return {name: pixels[..., number] for number, name in enumerate(names)}
