"""Simulated clicks: SAM's interactive evaluation protocol, as in its authors' code.

The first click is the pixel of the object that is farthest from its border. Each further click is
the pixel farthest from the border of an error region: false negatives or false positives, whichever
are deeper (SAM, arXiv 2304.02643, appendix D.1; facebookresearch/sam2,
`sample_one_point_from_error_center`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.lab.evaluation.examples import BoolMap
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.labels import NEGATIVE, POSITIVE

PIXEL_CENTER = 0.5


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks on P objects: xy float32 [P, N, 2] pixels (edges at integers), labels [P, N]."""

    xy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]

    def and_then(self, other: Clicks) -> Clicks:
        """These clicks followed by the others."""
        return Clicks(
            np.concatenate([self.xy, other.xy], 1), np.concatenate([self.labels, other.labels], 1)
        )


def first_clicks(truth: BoolMap) -> Clicks:
    """One click at the center of each object; truth [P, H, W]."""
    return _clicks([(*deepest(mask)[:2], POSITIVE) for mask in truth])


def next_clicks(answers: BoolMap, truth: BoolMap) -> Clicks:
    """One corrective click for each predicted mask; both [P, H, W].

    Where a mask has no error, the center of the object is clicked again.
    """
    return _clicks([_next(answer, mask) for answer, mask in zip(answers, truth, strict=True)])


def _next(answer: BoolMap, truth: BoolMap) -> tuple[float, float, int]:
    missed_x, missed_y, missed_depth = deepest(truth & ~answer)
    x, y, depth = deepest(answer & ~truth)
    if depth == missed_depth == 0:
        return (*deepest(truth)[:2], POSITIVE)
    return (missed_x, missed_y, POSITIVE) if missed_depth >= depth else (x, y, NEGATIVE)


def _clicks(points: list[tuple[float, float, int]]) -> Clicks:
    values = np.array(points, np.float32).reshape(-1, 1, 3)
    return Clicks(values[..., :2] + np.float32(PIXEL_CENTER), values[..., 2])
