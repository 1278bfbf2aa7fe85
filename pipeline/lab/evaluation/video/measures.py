"""J, F and their statistics as DAVIS defines them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016; reference code: github.com/davisvideochallenge/davis2017-evaluation. Tests compare with
TrackEval's copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import SizeHW

BoolMap = npt.NDArray[np.bool_]

TOLERANCE = 0.008
"""Largest distance of matching boundaries, as a share of the image diagonal."""
RECALL_ABOVE = 0.5
_QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Statistics:
    """A measure over the frames of an object.

    mean: 0..1. recall: share of the frames above `RECALL_ABOVE`. decay: mean of the first quarter
    of the frames minus that of the last, -1..1.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float]) -> Statistics:
    """Statistics of the values of successive frames; adjacent quarters share a frame, as in DAVIS.

    Raises `ValueError` if there are none.
    """
    if not values:
        raise ValueError("there are no values")
    scores = np.asarray(values, np.float64)
    edges = np.round(np.linspace(1, len(scores), _QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = scores[: edges[1] + 1], scores[edges[-2] :]
    return Statistics(
        float(scores.mean()),
        float((scores > RECALL_ABOVE).mean()),
        float(first.mean() - last.mean()),
    )


def region_similarity(answer: BoolMap, truth: BoolMap) -> float:
    """J: IoU of two masks [H, W]; 1 if both are empty."""
    union = np.count_nonzero(answer | truth)
    return np.count_nonzero(answer & truth) / union if union else 1.0


def boundary_accuracy(answer: BoolMap, truth: BoolMap) -> float:
    """F: harmonic mean of the precision and the recall of the boundary of masks [H, W].

    A boundary pixel is correct if the other boundary is within `TOLERANCE`. 1 if neither mask has
    a boundary, 0 if only one has.
    """
    radius = int(np.ceil(TOLERANCE * np.hypot(*truth.shape)))
    x, y, width, height = cv2.boundingRect((answer | truth).view(np.uint8))
    near = (
        slice(max(0, y - radius - 1), y + height + radius + 1),
        slice(max(0, x - radius - 1), x + width + radius + 1),
    )
    answered, wanted = boundary(answer[near]), boundary(truth[near])
    if not answered.any() or not wanted.any():
        return float(answered.any() == wanted.any())
    precision = np.count_nonzero(answered & _dilate(wanted, radius)) / np.count_nonzero(answered)
    recall = np.count_nonzero(wanted & _dilate(answered, radius)) / np.count_nonzero(wanted)
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def boundary(mask: BoolMap) -> BoolMap:
    """Pixels whose right, lower or lower right neighbor has another value, bool [H, W].

    The edge of the image is no boundary.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, beyond = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((mask ^ right) | (mask ^ below) | (mask ^ beyond), np.bool_)


def _dilate(mask: BoolMap, radius: int) -> BoolMap:
    return cv2.dilate(mask.astype(np.uint8), _disc(radius)).astype(np.bool_)


def _disc(radius: int) -> npt.NDArray[np.uint8]:
    reach: SizeHW = (2 * radius + 1, 2 * radius + 1)
    rows, columns = np.indices(reach) - radius
    return (rows**2 + columns**2 <= radius**2).astype(np.uint8)
