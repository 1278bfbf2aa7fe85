"""Simulates a tracker's proposals, its propagated masks, by disturbing ground-truth masks.

Propagation shifts, scales, rotates and bends a mask, erodes or dilates it, loses parts of it and
leaks onto neighbors; features of stride 8 or 16 blur it. Training on such proposals teaches the
decoder to correct them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import deepest

Coverage = npt.NDArray[np.float32]

_CONFIDENT_LOGIT = 6.0  # largest logit of a proposal


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask prompt with the box and the point that a tracker would add to it.

    logits: float32 [h, w] at stride 4. box_xyxy, point_xy: 0..1 of the padded square. absent: the
    object is not on the image, so no mask is right.
    """

    logits: Coverage
    box_xyxy: npt.NDArray[np.float32]
    point_xy: npt.NDArray[np.float32]
    absent: bool

    @classmethod
    def of(cls, logits: Coverage, absent: bool) -> Proposal:
        """Derive the box and the deepest point from logits > 0, which must not be empty."""
        inside = logits > 0
        x, y, w, h = cv2.boundingRect(inside.view(np.uint8))
        column, row, _ = deepest(inside)
        side = np.float32(max(logits.shape))
        box = np.array([x, y, x + w, y + h], np.float32) / side
        point = np.array([column + 0.5, row + 0.5], np.float32) / side
        return cls(logits, box, point, absent)


def disturb(rng: np.random.Generator, mask: Coverage, neighbor: Coverage) -> Coverage:
    """Disturb a mask (coverage 0..1 [h, w]) as propagation does; returns logits [h, w], not empty.

    neighbor: coverage of another object onto which the proposal may leak.
    """
    area = float(mask.sum())
    size = max(2.0, area**0.5)
    strength = float(rng.uniform(0, 1))
    moved = _move(rng, mask, size, strength)
    if rng.random() < 0.3:
        moved = _lose_part(rng, moved)
    if rng.random() < 0.3:
        moved = np.maximum(moved, _leak(rng, moved, neighbor, size))
    moved = _swell_or_erode(rng, moved, size, strength)
    factor = int(rng.choice([1, 1, 2, 4]))
    if factor > 1:
        moved = _blur_to_stride(moved, factor)
    limit = float(rng.uniform(0.4, 1.0)) * _CONFIDENT_LOGIT
    clipped = np.clip(moved, 1e-4, 1 - 1e-4)
    logits = np.clip(np.log(clipped / (1 - clipped)), -limit, limit).astype(np.float32)
    if not (logits > 0).any():
        logits = np.where(mask >= mask.max(), limit, -limit).astype(np.float32)
    return np.asarray(logits, np.float32)


def move_elsewhere(rng: np.random.Generator, mask: Coverage, taken: Coverage) -> Coverage | None:
    """The mask moved off all objects of `taken` [h, w]; None if no such place is found."""
    h, w = mask.shape
    for _ in range(8):
        dx, dy = rng.uniform(-0.9, 0.9, 2) * (w, h)
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = np.asarray(cv2.warpAffine(mask, matrix, (w, h)), np.float32)
        area = float((moved > 0.5).sum())
        if area >= 0.5 * float((mask > 0.5).sum()) and area > 0:
            overlap = float(((moved > 0.5) & (taken > 0.1)).sum())
            if overlap < 0.05 * area:
                return moved
    return None


def _move(rng: np.random.Generator, mask: Coverage, size: float, strength: float) -> Coverage:
    """Shift, scale, rotate and bend in one remapping."""
    h, w = mask.shape
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
    total = mask.sum()
    cy, cx = float((rows * mask).sum() / total), float((columns * mask).sum() / total)
    angle = np.deg2rad(rng.normal(0, 6)) * strength
    scale = np.exp(rng.normal(0, 0.08, 2) * strength)
    dx, dy = rng.normal(0, 0.07, 2) * size * strength
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = (columns - cx - dx) / scale[0], (rows - cy - dy) / scale[1]
    cells = int(rng.integers(3, 9))
    bend = cv2.resize(
        (rng.normal(0, 0.04, (cells, cells, 2)) * size * strength).astype(np.float32),
        (w, h),
        interpolation=cv2.INTER_CUBIC,
    )
    source_x = (cx + cos * x + sin * y + bend[..., 0]).astype(np.float32)
    source_y = (cy - sin * x + cos * y + bend[..., 1]).astype(np.float32)
    return np.asarray(cv2.remap(mask, source_x, source_y, cv2.INTER_LINEAR), np.float32)


def _lose_part(rng: np.random.Generator, mask: Coverage) -> Coverage:
    """Remove the part beyond a line or inside a disc."""
    rows, columns = np.nonzero(mask > 0.5)
    if not len(rows):
        return mask
    grid_y, grid_x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        along = grid_x * np.cos(angle) + grid_y * np.sin(angle)
        limit = np.quantile(along[rows, columns], rng.uniform(0.6, 0.95))
        kept = along <= limit
    else:
        at = int(rng.integers(len(rows)))
        radius = rng.uniform(0.15, 0.4) * len(rows) ** 0.5
        kept = (grid_x - columns[at]) ** 2 + (grid_y - rows[at]) ** 2 > radius**2
    return np.asarray(mask * kept, np.float32)


def _leak(rng: np.random.Generator, mask: Coverage, neighbor: Coverage, size: float) -> Coverage:
    """A blob at the object's border, or the part of a neighbor that is near it."""
    near = _grown(mask, size * rng.uniform(0.1, 0.4))
    touching = np.minimum(near, neighbor)
    if touching.sum() > 0.02 * mask.sum() and rng.random() < 0.7:
        return np.asarray(touching, np.float32)
    rows, columns = np.nonzero((near > 0.5) & (mask <= 0.5))
    if not len(rows):
        return mask
    at = int(rng.integers(len(rows)))
    blob = np.zeros_like(mask)
    radius = max(1, round(size * rng.uniform(0.08, 0.3)))
    cv2.circle(blob, (int(columns[at]), int(rows[at])), radius, 1.0, -1)
    return blob


def _swell_or_erode(
    rng: np.random.Generator, mask: Coverage, size: float, strength: float
) -> Coverage:
    radius = size * 0.08 * strength * rng.random()
    if radius < 0.5:
        return mask
    return _grown(mask, radius) if rng.random() < 0.5 else 1 - _grown(1 - mask, radius)


def _grown(mask: Coverage, radius: float) -> Coverage:
    """The mask and all cells within `radius` of it."""
    outside = (mask <= 0.5).astype(np.uint8)
    if outside.all():
        return mask
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    near = np.clip(radius + 0.5 - distance, 0, 1)
    return np.asarray(np.maximum(mask, near), np.float32)


def _blur_to_stride(mask: Coverage, factor: int) -> Coverage:
    """Blur a mask as if it had been propagated on cells `factor` times as large."""
    h, w = mask.shape
    small = cv2.resize(mask, (-(-w // factor), -(-h // factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
