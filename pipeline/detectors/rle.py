"""Masks of COCO's `segmentation`: run lengths, compressed or not, and polygons, without its API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import SizeHW

_FARTHEST = 1_000_000  # pixels; what is farther cannot be drawn


def mask_of(segmentation: Any, size_hw: SizeHW) -> npt.NDArray[np.bool_]:
    """Decode to bool [H, W]. Raises `ValueError` if it is malformed or of another size."""
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not isinstance(size, list) or size != list(size_hw):
            raise ValueError(f"its mask has the size {size}, the image {list(size_hw)}")
        runs = _decompressed(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, Sequence) or not all(isinstance(n, int) and n >= 0 for n in runs):
            raise ValueError("the run lengths of its mask are malformed")
        if sum(runs) != size_hw[0] * size_hw[1]:
            raise ValueError("the run lengths of its mask do not add up to the image")
        inside = np.arange(len(runs)) % 2 == 1
        return np.repeat(inside, runs).reshape(size_hw[::-1]).T
    mask = np.zeros(size_hw, np.uint8)
    polygons = segmentation if isinstance(segmentation, list) else []
    if not polygons or not all(isinstance(p, list) and len(p) >= 6 for p in polygons):
        raise ValueError("its mask is neither polygons nor run lengths")
    if not all(map(_is_coordinate, chain.from_iterable(polygons))):
        raise ValueError("a polygon of its mask has coordinates that are not finite numbers")
    points = [np.rint(np.array(p[: len(p) // 2 * 2], float).reshape(-1, 2)) for p in polygons]
    cv2.fillPoly(mask, [p.astype(np.int32) for p in points], 1)
    return mask.astype(np.bool_)


def _is_coordinate(value: Any) -> bool:
    """Whether a value is a number that a polygon in pixels may have."""
    return isinstance(value, int | float) and abs(value) <= _FARTHEST


def _decompressed(text: str) -> list[int]:
    """COCO's string of run lengths: six bits a character, differences to the run before the last.

    As in `rleFrString` of https://github.com/cocodataset/cocoapi (common/maskApi.c).
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the run lengths of its mask are malformed")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs
