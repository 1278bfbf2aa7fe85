"""Conversion of masks to closed polygons; holes and islands are joined by zero-width lines."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.exports.frames import Mask
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.iou import mask_iou

Points = npt.NDArray[np.int32]

_DISTANCES = 1 << 20  # in memory at a time
_CORNERS = 3


def polygons_of(mask: Mask, iou_min: float) -> list[Points]:
    """One polygon if joining the components keeps an IoU of `iou_min`, else one per component."""
    joined = polygon_of(mask)
    if mask_iou(fill(joined, mask.shape), mask, empty=1.0) >= iou_min:
        return [joined]
    count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [polygon_of(np.equal(pieces, piece)) for piece in range(1, count)]


def polygon_of(mask: Mask) -> Points:
    """Polygon [N, 2] (x, y) through the boundary pixels of a non-empty mask; N >= 3.

    Filled including its edge, as OpenCV's `fillPoly` does, it gives the mask, except for the lines
    that join components. Contours of components and holes are joined by the shortest lines (Prim's
    tree), while Ultralytics' `merge_multi_segment` joins them in sequence; so a hole's line stays
    inside its own component and is invisible.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    whole, *rings = (np.asarray(ring[:, 0], np.int32) for ring in found)
    links = [_nearest(whole, ring) for ring in rings]
    while rings:
        k = min(range(len(rings)), key=lambda i: links[i][0])
        (_, at, j), ring = links.pop(k), rings.pop(k)
        i = int(np.flatnonzero((whole == at).all(1))[0])
        whole = np.concatenate([whole[: i + 1], ring[j:], ring[: j + 1], whole[i:]])
        links = [
            min(link, _nearest(ring, other), key=lambda near: near[0])
            for link, other in zip(links, rings, strict=True)
        ]
    corners = _corners(whole)
    return np.concatenate([corners, corners[-1:].repeat(max(0, _CORNERS - len(corners)), 0)])


def fill(polygon: Points, size_hw: SizeHW) -> Mask:
    """Rasterize a polygon including its edge, as YOLO's own reader does."""
    return np.asarray(cv2.fillPoly(np.zeros(size_hw, np.uint8), [polygon], 1), np.bool_)


def _nearest(one: Points, other: Points) -> tuple[float, Points, int]:
    """Squared distance of two contours, the point [2] on the first, the index in the second."""
    step = max(1, _DISTANCES // len(one))
    best = (np.inf, one[0], 0)
    for start in range(0, len(other), step):
        offsets = one[:, None].astype(np.int64) - other[None, start : start + step]
        squares = (offsets**2).sum(2)
        i, j = divmod(int(squares.argmin()), squares.shape[1])
        if squares[i, j] < best[0]:
            best = (float(squares[i, j]), one[i], start + j)
    return best


def _corners(polygon: Points) -> Points:
    """Remove the points of a polygon that lie on straight lines."""
    before = polygon - np.roll(polygon, 1, axis=0)
    after = np.roll(polygon, -1, axis=0) - polygon
    straight = before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]
    return np.asarray(polygon[~(straight & ((before * after).sum(1) > 0))], np.int32)
