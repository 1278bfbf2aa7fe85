"""Cut-outs and backgrounds of generated clips: photographs from a folder, else drawn shapes.

A folder holds `train/<source>/cutouts/*.webp` (RGBA), `train/<source>/{images,masks}` (label maps)
and `backgrounds/*.jpg`; sprites or backgrounds that are missing are drawn instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceNotFoundError
from maskstream.pipeline.lab.evaluation.examples import read_pixels, read_rgb
from maskstream.pipeline.types import RgbImage, SizeHW

Sprite = npt.NDArray[np.float32]
"""Premultiplied RGBA 0..1, [H, W, 4]."""

SPRITE_PX = 192
"""Long side of a sprite."""
_LEAST_SHARE = 0.04  # of its image that a labeled object must cover to be cut out
_LEAST_SOLIDITY = 0.6  # of its convex hull
_LEAST_FILL = 0.25  # of its box: no thin objects
_ATTEMPTS = 60
_OCTAVES = 5


class Images(Protocol):
    """Supplies sprites and backgrounds, chosen by a generator so that a seed repeats them."""

    def sprite(self, rng: np.random.Generator) -> Sprite:
        """A cut-out object, long side `SPRITE_PX`."""

    def background(self, rng: np.random.Generator, size_hw: SizeHW) -> RgbImage:
        """An image uint8 [H, W, 3] of this size."""


@dataclass(frozen=True, slots=True)
class SpriteImages:
    """Draws textured blobs and textured backgrounds; needs no files."""

    def sprite(self, rng: np.random.Generator) -> Sprite:
        """A smooth blob with a high-contrast texture of two colors."""
        side = 4 * SPRITE_PX
        angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        radii = np.ones_like(angles)
        for lobes in range(2, 6):
            phase = rng.uniform(0, 2 * np.pi)
            radii += rng.uniform(0, 0.5 / lobes) * np.cos(lobes * angles + phase)
        outline = np.stack([np.cos(angles), rng.uniform(0.6, 1) * np.sin(angles)], 1)
        outline *= radii[:, None]
        outline *= 0.49 * side / np.abs(outline).max()
        alpha = np.zeros((side, side), np.uint8)
        cv2.fillPoly(alpha, [np.rint(outline + side / 2).astype(np.int32)], 255)
        hue = rng.uniform(0, 1)
        texture = _texture(rng, (SPRITE_PX, SPRITE_PX), _color(hue, 0.95), _color(hue + 0.3, 0.5))
        small = cv2.resize(alpha, (SPRITE_PX, SPRITE_PX), interpolation=cv2.INTER_AREA)
        return _trimmed(_levels(texture), np.asarray(small, np.uint8))

    def background(self, rng: np.random.Generator, size_hw: SizeHW) -> RgbImage:
        """Low-contrast texture with a few boxes and discs, so that there is structure."""
        hue = rng.uniform(0, 1)
        ground = _texture(rng, size_hw, _color(hue, 0.35, 0.3), _color(hue + 0.15, 0.7, 0.2))
        image = _levels(ground)
        covered = image.copy()
        height, width = size_hw
        for _ in range(14):
            color = _color(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.2, 0.8), 0.35)
            tint = (255 * color).tolist()
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            reach = int(rng.integers(height // 16, height // 5))
            if rng.random() < 0.5:
                cv2.circle(covered, (x, y), reach, tint, -1, cv2.LINE_AA)
            else:
                corner = (x + int(rng.integers(reach, 3 * reach)), y + reach)
                cv2.rectangle(covered, (x, y), corner, tint, -1)
        return np.asarray(cv2.addWeighted(image, 0.35, covered, 0.65, 0), np.uint8)


class FolderImages:
    """Real cut-outs and backgrounds; drawn ones where the folder has none of a kind.

    Raises `SourceNotFoundError` if the folder does not exist or has no cut-outs and backgrounds.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SourceNotFoundError(f"there is no folder {root}")
        self._cutouts = sorted(root.glob("train/*/cutouts/*.webp"))
        self._sources = sorted(p.parent for p in root.glob("train/*/masks") if p.is_dir())
        self._backgrounds = sorted(root.glob("backgrounds/*.jpg"))
        if not (self._cutouts or self._sources or self._backgrounds):
            raise SourceNotFoundError(
                f"no train/<source>/cutouts/*.webp, train/<source>/masks or backgrounds/*.jpg in "
                f"{root}"
            )

    def sprite(self, rng: np.random.Generator) -> Sprite:
        """A cut-out, or an object of a labeled image: compact, in one piece, not truncated."""
        for _ in range(_ATTEMPTS):
            from_labels = self._sources and (not self._cutouts or rng.random() < 0.5)
            if from_labels:
                sprite = _cut_out(rng, self._sources[int(rng.integers(len(self._sources)))])
            elif self._cutouts:
                sprite = _read_cutout(self._cutouts[int(rng.integers(len(self._cutouts)))])
            else:
                break
            if sprite is not None:
                return sprite
        return SpriteImages().sprite(rng)

    def background(self, rng: np.random.Generator, size_hw: SizeHW) -> RgbImage:
        """A photograph that covers the size."""
        if not self._backgrounds:
            return SpriteImages().background(rng, size_hw)
        photo = read_rgb(self._backgrounds[int(rng.integers(len(self._backgrounds)))])
        return _cover(photo, size_hw)


def _cover(image: RgbImage, size_hw: SizeHW) -> RgbImage:
    """The center of an image, scaled to cover the size."""
    height, width = size_hw
    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(n, round(scale * m)) for n, m in zip(size_hw, image.shape, strict=False))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(image, (columns, rows), interpolation=method)
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.asarray(scaled[top : top + height, left : left + width], np.uint8)


def _read_cutout(file: Path) -> Sprite | None:
    pixels = np.asarray(read_pixels(file, cv2.IMREAD_UNCHANGED), np.uint8)
    if pixels.ndim != 3 or pixels.shape[2] != 4 or not _is_compact(pixels[..., 3] > 127):
        return None
    return _trimmed(pixels[..., 2::-1], pixels[..., 3])


def _cut_out(rng: np.random.Generator, source: Path) -> Sprite | None:
    """A random object of a labeled image, or None if it is too small, truncated or not compact."""
    masks = sorted((source / "masks").glob("*.png"))
    if not masks:
        return None
    file = masks[int(rng.integers(len(masks)))]
    labels = np.asarray(read_pixels(file, cv2.IMREAD_UNCHANGED))
    image = source / "images" / f"{file.stem}.jpg"
    if labels.ndim != 2 or not labels.any() or not image.is_file():
        return None
    ids = np.unique(labels)
    mask = labels == rng.choice(ids[ids > 0])
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if border.any() or mask.mean() < _LEAST_SHARE or not _is_compact(mask):
        return None
    # Erode by a pixel: pixels on the border are mixed with the old background's color.
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    alpha = cv2.GaussianBlur(255 * inner, (3, 3), 0.7)
    return _trimmed(read_rgb(image), np.asarray(alpha, np.uint8))


def _is_compact(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask is one solid piece."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if len(outlines) != 1:
        return False
    area, hull = cv2.contourArea(outlines[0]), cv2.contourArea(cv2.convexHull(outlines[0]))
    _, _, width, height = cv2.boundingRect(outlines[0])
    return area >= _LEAST_SOLIDITY * hull > 0 and area >= _LEAST_FILL * width * height


def _trimmed(rgb: RgbImage, alpha: npt.NDArray[np.uint8]) -> Sprite:
    """Premultiplied RGBA of the box of `alpha` (uint8 [H, W]), long side `SPRITE_PX`."""
    x, y, width, height = cv2.boundingRect(alpha)
    box = (slice(y, y + height), slice(x, x + width))
    share = alpha[box][..., None].astype(np.float32) / 255
    rgba = np.concatenate([rgb[box].astype(np.float32) / 255 * share, share], 2)
    scale = SPRITE_PX / max(width, height)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgba, size, interpolation=method), np.float32)


def _texture(
    rng: np.random.Generator, size_hw: SizeHW, dark: npt.ArrayLike, light: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Noise of several octaves between two colors, float32 [H, W, 3] in 0..1."""
    height, width = size_hw
    total = np.zeros(size_hw, np.float32)
    for octave in range(_OCTAVES):
        cells = 3 * 2**octave
        grid = rng.standard_normal((cells, max(2, cells * width // height))).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / (1 + octave)
    share = np.clip(0.5 + total / (3 * total.std()), 0, 1)[..., None]
    return np.asarray(share * np.asarray(light) + (1 - share) * np.asarray(dark), np.float32)


def _levels(share: npt.NDArray[np.float32]) -> RgbImage:
    """Colors 0..1 as uint8."""
    return np.asarray(np.rint(255 * share), np.uint8)


def _color(hue: float, value: float, saturation: float = 0.8) -> npt.NDArray[np.float32]:
    """RGB 0..1 from hue (turns), value and saturation."""
    hsv = np.array([[[360 * (hue % 1), saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)
