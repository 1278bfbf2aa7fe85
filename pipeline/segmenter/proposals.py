"""Proposals: objects found without a prompt, from boxes, and which of them are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import FloatMap, boxes_of
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter

BoolMap = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object found without a prompt. logits: float32 [4h, 4w]; iou, stability: 0..1."""

    logits: FloatMap
    iou: float
    stability: float

    @property
    def score(self) -> float:
        """Confidence 0..1."""
        return self.iou * self.stability


@dataclass(frozen=True, slots=True)
class ScoredBoxes:
    """Boxes of possible objects, best first.

    boxes_xyxy: float32 [N, 4], displayed pixels. scores: float32 [N], 0..1, the expected IoU of the
    box with the object's.
    """

    boxes_xyxy: FloatMap
    scores: FloatMap

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, kept: npt.NDArray[np.bool_] | slice) -> ScoredBoxes:
        return ScoredBoxes(self.boxes_xyxy[kept], self.scores[kept])


def refine(
    segmenter: Segmenter, features: Features, proposals: Sequence[Proposal]
) -> list[Proposal]:
    """Decode again with the box of every proposal, which gives better masks than a point.

    The new proposal's stability is the IoU of both masks: an object must be the same to both
    prompts. Costs one prompt per proposal.
    """
    if not proposals:
        return []
    scale = np.tile(segmenter.geometry.cell / np.array(segmenter.geometry.scale_xy), 2)
    before = np.stack([p.logits > 0 for p in proposals])
    decoded = segmenter.decode(features, PromptBatch.boxes(boxes_of(before) * scale))
    after = decoded.masks[:, 0] > 0
    overlap = (before & after).sum((1, 2))
    agreement = overlap / np.maximum((before | after).sum((1, 2)), 1)
    return [
        Proposal(decoded.masks[i, 0], float(decoded.iou[i, 0]), float(agreement[i]))
        for i in range(len(proposals))
    ]


def decode_boxes(segmenter: Segmenter, features: Features, boxes: ScoredBoxes) -> list[Proposal]:
    """Decode the boxes of a detector, in their order; costs one prompt per box.

    A proposal's stability is the fourth root of its box's score: of powers and products of that,
    the predicted IoU and the overlap of box and mask, this ranked held-out objects best
    (docs/measurements/seeding.md). Boxes without a mask are left out.
    """
    if not len(boxes):
        return []
    decoded = segmenter.decode(features, PromptBatch.boxes(boxes.boxes_xyxy))
    logits = decoded.masks[:, 0]
    sure = boxes.scores**0.25
    return [
        Proposal(logits[i], float(decoded.iou[i, 0]), float(sure[i]))
        for i in np.flatnonzero((logits > 0).any((1, 2)))
    ]


def suppress_duplicates(proposals: list[Proposal], iou_max: float) -> list[Proposal]:
    """Keep the best of every group of masks that overlap by more than `iou_max`; best first."""
    if not proposals:
        return []
    ordered = sorted(proposals, key=lambda p: -p.score)
    flat = np.stack([p.logits > 0 for p in ordered]).reshape(len(ordered), -1).astype(np.float32)
    overlap = flat @ flat.T
    area = flat.sum(1)
    iou = overlap / np.maximum(area[:, None] + area[None] - overlap, 1)
    kept: list[int] = []
    for i in range(len(ordered)):
        if not any(iou[i, j] > iou_max for j in kept):
            kept.append(i)
    return [ordered[i] for i in kept]


def suppress_parts(
    proposals: list[Proposal], inside_min: float, score_share: float
) -> list[Proposal]:
    """Drop masks inside a larger one that is nearly as confident: keep objects, not parts.

    inside_min: share of the smaller mask within the larger. score_share: of the smaller one's score
    that the larger must have.
    """
    if not proposals:
        return []
    flat = np.stack([p.logits > 0 for p in proposals]).reshape(len(proposals), -1)
    area = flat.sum(1)
    within = flat.astype(np.float32) @ flat.T.astype(np.float32) / np.maximum(area, 1)[:, None]
    scores = np.array([p.score for p in proposals])
    larger = area[None] > area[:, None]
    sure = scores[None] >= score_share * scores[:, None]
    is_part = ((within >= inside_min) & larger & sure).any(1)
    return [p for p, part in zip(proposals, is_part, strict=True) if not part]


def suppress_boxes(proposals: Sequence[Proposal], iou_max: float) -> list[Proposal]:
    """SAM's non-maximum suppression: by IoU of boxes, best predicted IoU first."""
    if not proposals:
        return []
    corners = boxes_of(np.stack([p.logits > 0 for p in proposals])).astype(np.float64)
    corners[:, 2:] -= corners[:, :2]  # to x, y, width, height
    scores = np.array([p.iou for p in proposals], np.float32)
    kept = cv2.dnn.NMSBoxes(corners.tolist(), scores.tolist(), 0.0, iou_max)
    return [proposals[i] for i in kept]


def separate_objects(
    proposals: list[Proposal], occupied_mask: BoolMap, overlap_max: float, limit: int
) -> list[Proposal]:
    """Keep up to `limit` proposals that overlap neither tracks nor each other."""
    kept: list[Proposal] = []
    taken = occupied_mask.copy()
    for proposal in proposals:
        if len(kept) >= limit:
            break
        mask = proposal.logits > 0
        if (mask & taken).sum() <= overlap_max * mask.sum():
            kept.append(proposal)
            taken |= mask
    return kept
