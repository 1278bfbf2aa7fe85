"""Intersection over union (IoU) of masks and boxes, NumPy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolMap = npt.NDArray[np.bool_]


def mask_iou(a: BoolMap, b: BoolMap, *, empty: float = 0.0) -> float:
    """IoU of two masks [H, W]; `empty` if both are empty, 0 if their sizes differ."""
    if a.shape != b.shape:
        return 0.0
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else empty


def paired_mask_iou(a: BoolMap, b: BoolMap, *, empty: float = 0.0) -> npt.NDArray[np.float64]:
    """IoU [n] of corresponding masks, both [n, H, W]; `empty` where both are empty."""
    overlap = (a & b).sum((1, 2))
    union = (a | b).sum((1, 2))
    return np.where(union > 0, overlap / np.maximum(union, 1), empty)


def pairwise_mask_iou(a: BoolMap, b: BoolMap) -> npt.NDArray[np.float64]:
    """IoU [n, m] of masks a [n, H, W] and b [m, H, W]; two empty masks have 0."""
    first = a.reshape(len(a), -1).astype(np.float32)
    second = b.reshape(len(b), -1).astype(np.float32)
    overlap = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - overlap
    return np.asarray(overlap / np.maximum(union, 1), np.float64)


def box_iou(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """IoU [n, m] of boxes xyxy a [n, 4] and b [m, 4]; boxes without area have 0."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(-1)
    area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1)
    union = area_a[:, None] + area_b[None] - overlap
    return np.asarray(overlap / np.maximum(union, 1e-9), np.float64)
