"""Boxes from the objectness head's maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.proposals import ScoredBoxes

FloatMap = npt.NDArray[np.float32]

_SIDE_MIN = 2.0  # input pixels of a box inside the image
_LOG_SIDE_MAX = 5.0  # logarithm of a distance in strides, as in training


def boxes_from_maps(
    maps: Sequence[FloatMap],
    geometry: InputGeometry,
    *,
    score_min: float,
    iou_max: float,
    limit: int,
) -> ScoredBoxes:
    """The `limit` best boxes with a score of at least `score_min`, after non-maximum suppression.

    maps: float32 [5, h, w] for each stride (`objectness.network.Level`). iou_max: of two boxes that
    are both kept.
    """
    found = [_cells(m, geometry, score_min) for m in maps]
    boxes = np.concatenate([b for b, _ in found])
    scores = np.concatenate([s for _, s in found])
    height, width = geometry.valid_hw
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    inside = (boxes[:, 2:] - boxes[:, :2] >= _SIDE_MIN).all(1)
    boxes, scores = boxes[inside], scores[inside]
    kept = suppress(boxes, scores, iou_max)[:limit]
    scale = np.tile(np.array(geometry.scale_xy, np.float32), 2)
    return ScoredBoxes(boxes[kept] / scale, scores[kept])


def suppress(boxes: FloatMap, scores: FloatMap, iou_max: float) -> npt.NDArray[np.intp]:
    """Indices of the boxes [N, 4] that non-maximum suppression keeps, best first."""
    if not len(boxes):
        return np.zeros(0, np.intp)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    kept = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, iou_max)
    return np.asarray(kept, np.intp).ravel()


def _cells(
    outputs: FloatMap, geometry: InputGeometry, score_min: float
) -> tuple[FloatMap, FloatMap]:
    """Boxes [N, 4] in input pixels and scores [N] of the cells of one map."""
    stride = geometry.input_hw[0] / outputs.shape[1]
    scores = 1 / (1 + np.exp(-outputs[0]))
    rows, columns = np.nonzero(scores >= score_min)
    centers = (np.stack([columns, rows], 1) + 0.5) * stride
    sides = stride * np.exp(np.minimum(outputs[1:, rows, columns].T, _LOG_SIDE_MAX))
    boxes = np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], 1)
    return boxes.astype(np.float32), scores[rows, columns].astype(np.float32)
