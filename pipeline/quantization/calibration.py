"""Calibration data: images of a video or folder, and random prompts on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceError, SourceNotFoundError
from maskstream.pipeline.segmenter.geometry import GRID_STRIDE, InputGeometry
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD, POSITIVE
from maskstream.pipeline.types import RgbImage

T = TypeVar("T")

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def calibration_images(origin: Path, count: int) -> list[RgbImage]:
    """Read `count` images (or all, if fewer), evenly spaced over a source or an image folder.

    Raises `SourceError`.
    """
    from maskstream.pipeline.sources import is_pattern

    if not origin.exists() and not is_pattern(origin):
        raise SourceNotFoundError(f"there is no {origin} to calibrate on")
    if origin.is_dir():
        files = sorted(p for p in origin.rglob("*") if p.suffix.lower() in IMAGES)
        read = [cv2.imread(str(p), cv2.IMREAD_COLOR) for p in spread(files, count)]
        rgb = [cv2.cvtColor(p, cv2.COLOR_BGR2RGB) for p in read if p is not None]
        images = [np.asarray(p, np.uint8) for p in rgb]
    else:
        images = _video_images(origin, count)
    if not images:
        raise SourceError(f"{origin} contains no images to calibrate on")
    return images


def spread(items: Sequence[T], count: int) -> list[T]:
    """Pick at most `count` items, evenly spaced."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]


def _video_images(origin: Path, count: int) -> list[RgbImage]:
    """Read with at most 2 * count images in memory: when full, every other one is dropped."""
    from maskstream.pipeline.sources import open_source

    kept: list[RgbImage] = []
    step = 1
    with open_source(origin).open() as reader:
        for position, frame in enumerate(reader):
            if position % step:
                continue
            kept.append(frame.rgb())
            if len(kept) >= 2 * count:
                kept, step = kept[::2], step * 2
    return spread(kept, count)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as encoder input (uint8 [1, H, W, 3]), with its geometry."""

    image: npt.NDArray[np.uint8]
    geometry: InputGeometry


def prepare(
    image: RgbImage,
    long_side: int,
    multiple: int,
    pad_rgb: tuple[int, int, int],
    cell: int = GRID_STRIDE,
    *,
    stretched: bool = False,
) -> PreparedImage:
    """Scale and pad an image for a network."""
    height, width = image.shape[:2]
    geometry = InputGeometry.fit((height, width), long_side, multiple, cell, stretched=stretched)
    valid_h, valid_w = geometry.valid_hw
    scaled = cv2.resize(image, (valid_w, valid_h), interpolation=cv2.INTER_AREA)
    padded = geometry.pad(np.asarray(scaled, np.uint8), pad_rgb)
    return PreparedImage(padded[None], geometry)


def random_prompts(
    geometry: InputGeometry, count: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Yield decoder inputs without features: single points, boxes, and boxes with a point.

    Each item is a batch of `count` prompts of one kind, without a mask prompt.
    """
    side = np.float32(geometry.side)
    size = np.array(geometry.valid_hw[::-1], np.float32)
    h, w = geometry.grid_hw
    fixed = {
        "mask": np.zeros((count, 1, h, w), np.float32),
        "has_mask": np.zeros(count, np.float32),
        "grid": geometry.cell_centers(),
    }
    points = rng.uniform(0.05, 0.95, (count, 1, 2)).astype(np.float32) * size / side
    corners = np.sort(rng.uniform(0.0, 1.0, (count, 2, 2)).astype(np.float32), axis=1) * size / side
    yield fixed | {
        "xy": np.concatenate([points, np.zeros_like(points)], 1),
        "labels": np.tile(np.array([POSITIVE, PAD], np.float32), (count, 1)),
    }
    yield fixed | {
        "xy": corners,
        "labels": np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.float32), (count, 1)),
    }
    yield fixed | {
        "xy": np.concatenate([corners, corners.mean(1, keepdims=True)], 1),
        "labels": np.tile(
            np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, POSITIVE], np.float32), (count, 1)
        ),
    }
