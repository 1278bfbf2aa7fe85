"""HOTA and identity switches: how consistently tracks follow the true objects over time.

HOTA: Luiten et al., IJCV 2021 (arXiv 2009.07736); switches: CLEAR MOT (Bernardin and
Stiefelhagen, 2008) at an IoU of 0.5. Both are computed as in TrackEval
(github.com/JonathonLuiten/TrackEval). The package is not used, as it installs a second OpenCV;
tests compare with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import LabelMap
from maskstream.trackers.assignment import assign

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""IoU thresholds of a match; HOTA is the mean over them."""
SWITCH_IOU = 0.5
_EPSILON = float(np.finfo(np.float64).eps)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameOverlap:
    """Objects of one frame and their IoU.

    truth, answers: ids of true and of predicted objects, [n] and [m]. iou: [n, m].
    """

    truth: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    iou: Matrix


@dataclass(frozen=True, slots=True)
class IdentityScores:
    """HOTA, its parts, identity switches and delays of a sequence.

    hota, detection (DetA) and association (AssA): 0..1, means over `ALPHAS`. switches: count.
    delays: for every true object, the number of annotated frames before a prediction first reaches
    an IoU of `SWITCH_IOU` with it; None if none does.
    """

    hota: float
    detection: float
    association: float
    switches: int
    delays: tuple[int | None, ...]

    @property
    def found(self) -> float:
        """Share of the objects that were found on any frame, 0..1."""
        return sum(d is not None for d in self.delays) / max(1, len(self.delays))

    def found_within(self, frames: float) -> float:
        """Share of the objects that were found within `frames` annotated frames, 0..1."""
        soon = sum(d is not None and d <= frames for d in self.delays)
        return soon / max(1, len(self.delays))


def overlap(answer: LabelMap, truth: LabelMap) -> FrameOverlap:
    """Compare two label maps [H, W]; 0 is background in both."""
    truth_ids, truth_index = np.unique(truth, return_inverse=True)
    ids, index = np.unique(answer, return_inverse=True)
    pairs = truth_index.ravel() * len(ids) + index.ravel()
    shape = (len(truth_ids), len(ids))
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    union = common.sum(1)[:, None] + common.sum(0)[None] - common
    rows, columns = truth_ids > 0, ids > 0
    iou = (common / union)[rows][:, columns]
    return FrameOverlap(
        truth_ids[rows].astype(np.int64), ids[columns].astype(np.int64), np.asarray(iou)
    )


def score_identities(frames: Sequence[FrameOverlap]) -> IdentityScores:
    """HOTA and identity switches over the annotated frames of a sequence, in order."""
    truth_ids = np.unique(np.concatenate([f.truth for f in frames]))
    answer_ids = np.unique(np.concatenate([f.answers for f in frames]))
    numbered = [
        FrameOverlap(
            np.searchsorted(truth_ids, f.truth), np.searchsorted(answer_ids, f.answers), f.iou
        )
        for f in frames
    ]
    shape = (len(truth_ids), len(answer_ids))
    detection, association = _accuracies(numbered, shape)
    return IdentityScores(
        float(np.sqrt(detection * association).mean()),
        float(detection.mean()),
        float(association.mean()),
        _switches(numbered),
        tuple(_delays(numbered, len(truth_ids))),
    )


def _accuracies(frames: Sequence[FrameOverlap], shape: tuple[int, int]) -> tuple[Matrix, Matrix]:
    """DetA and AssA at each of `ALPHAS`."""
    truth_count, answer_count = np.zeros(shape[0]), np.zeros(shape[1])
    likely = np.zeros(shape)  # soft count of the frames on which a pair matches
    for frame in frames:
        truth_count[frame.truth] += 1
        answer_count[frame.answers] += 1
        either = frame.iou.sum(1)[:, None] + frame.iou.sum(0)[None] - frame.iou
        share = np.divide(frame.iou, either, out=np.zeros_like(either), where=either > _EPSILON)
        likely[np.ix_(frame.truth, frame.answers)] += share
    counts = truth_count[:, None] + answer_count[None]
    alignment = likely / np.maximum(counts - likely, _EPSILON)
    matches = np.zeros((len(ALPHAS), *shape))
    for frame in frames:
        value = alignment[np.ix_(frame.truth, frame.answers)] * frame.iou
        for row, column in assign(1 - value, 1).pairs:
            counted = frame.iou[row, column] >= ALPHAS - _EPSILON
            matches[counted, frame.truth[row], frame.answers[column]] += 1
    found = matches.sum((1, 2))
    detection = found / np.maximum(truth_count.sum() + answer_count.sum() - found, 1)
    per_pair = matches / np.maximum(counts - matches, 1)
    association = (matches * per_pair).sum((1, 2)) / np.maximum(found, 1)
    return detection, association


def _delays(frames: Sequence[FrameOverlap], objects: int) -> list[int | None]:
    """Frames until each object was found."""
    waited: list[int | None] = [None] * objects
    seen = np.zeros(objects, np.intp)
    for frame in frames:
        for row, truth in enumerate(frame.truth):
            if waited[truth] is None and (frame.iou[row] >= SWITCH_IOU - _EPSILON).any():
                waited[truth] = int(seen[truth])
            seen[truth] += 1
    return waited


def _switches(frames: Sequence[FrameOverlap]) -> int:
    """How often an object is matched with another prediction than at its previous match."""
    last: dict[int, int] = {}
    before: dict[int, int] = {}  # on the previous frame; these matches are preferred
    count = 0
    for frame in frames:
        kept = np.array([before.get(t, -1) for t in frame.truth]).reshape(-1, 1)
        value = frame.iou + 1000.0 * (kept == frame.answers[None])
        cost = np.where(frame.iou >= SWITCH_IOU - _EPSILON, 2000 - value, np.inf)
        before = {}
        for row, column in assign(cost, 2000).pairs:
            truth, answer = int(frame.truth[row]), int(frame.answers[column])
            count += last.get(truth, answer) != answer
            last[truth] = before[truth] = answer
    return count
