"""Scores of one image: IoU from a box and from clicks, and what everything mode finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipeline.config import SeedingConfig
from pipeline.evaluation.clicks import first_clicks, next_clicks
from pipeline.evaluation.examples import SMALLEST_SHARE, BoolMap, Example
from pipeline.segmenter.everything import EverythingSearch, refine
from pipeline.segmenter.geometry import FloatMap, InputGeometry, boxes_of
from pipeline.segmenter.model import Features, PromptBatch, Segmenter, best_of_three
from pipeline.sources.arrays import ArrayView
from pipeline.types import Frame, RgbImage

Ious = npt.NDArray[np.float64]

MEASURES = ("box", "click1", "click2", "click3", "click5", "oracle3")
CLICKS = 5
FOUND_IOU = 0.7
"""An object counts as found by everything mode from this IoU on."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of the P objects of one image.

    ious: [P] by name of `MEASURES`. areas: pixels [P]. found: bool [P] of everything mode, None
    where that was not asked.
    """

    ious: Mapping[str, Ious]
    areas: npt.NDArray[np.int64]
    found: BoolMap | None


def score_image(segmenter: Segmenter, example: Example, *, everything: bool) -> ImageScores:
    """Ask for every object of an example that has some; masks are compared at its full size."""
    features = segmenter.encode(frame_of(example.rgb))
    truth = example.masks
    boxes = segmenter.decode(features, PromptBatch.boxes(boxes_of(truth)))
    answers = full_size(segmenter.geometry, boxes.masks[:, 0])
    ious = {"box": paired_ious(answers, truth)} | _click_ious(segmenter, features, truth)
    found = _found(segmenter, features, truth) if everything else None
    return ImageScores(ious, truth.sum((1, 2)), found)


def _click_ious(segmenter: Segmenter, features: Features, truth: BoolMap) -> dict[str, Ious]:
    """IoU after 1..`CLICKS` clicks and of the best of the first click's three candidates.

    The first answer is the candidate with the highest predicted IoU. Later ones are the single
    mask, and the answer before is their mask prompt.
    """
    geometry = segmenter.geometry
    clicks = first_clicks(truth)
    decoded = segmenter.decode(features, PromptBatch.points(clicks.xy, clicks.labels))
    everyone = np.arange(len(truth))
    chosen = best_of_three(decoded)
    logits = decoded.masks[everyone, chosen]
    candidates = np.stack(
        [paired_ious(full_size(geometry, decoded.masks[:, k]), truth) for k in (1, 2, 3)]
    )
    ious = {"click1": candidates[chosen - 1, everyone], "oracle3": candidates.max(0)}
    answers = full_size(geometry, logits)
    for count in range(2, CLICKS + 1):
        clicks = clicks.and_then(next_clicks(answers, truth))
        prompts = PromptBatch.points(clicks.xy, clicks.labels)
        logits = segmenter.decode(features, replace(prompts, mask=logits[:, None])).masks[:, 0]
        answers = full_size(geometry, logits)
        ious[f"click{count}"] = paired_ious(answers, truth)
    return {name: ious[name] for name in MEASURES if name in ious}


def _found(segmenter: Segmenter, features: Features, truth: BoolMap) -> BoolMap:
    """Whether everything mode finds each object: both passes, then the boxes of what they found.

    It looks for objects of every size that is asked for, not only of those that a stream seeds.
    """
    geometry = segmenter.geometry
    config = SeedingConfig(area_min=SMALLEST_SHARE, area_max=1)
    search = EverythingSearch(segmenter, features, np.zeros(geometry.grid_hw, bool), config)
    for _ in search.steps():
        pass
    flat = truth.reshape(len(truth), -1).astype(np.float32)
    best = np.zeros(len(truth))
    for proposal in refine(segmenter, features, search.found()):
        mask = full_size(geometry, proposal.logits[None]).astype(np.float32).ravel()
        overlap = flat @ mask
        best = np.maximum(best, overlap / (flat.sum(1) + mask.sum() - overlap))
    return best >= FOUND_IOU


def frame_of(rgb: RgbImage) -> Frame:
    """A picture as a frame."""
    return Frame(0, None, Fraction(1), (rgb.shape[0], rgb.shape[1]), ArrayView(rgb))


def full_size(geometry: InputGeometry, logits: FloatMap) -> BoolMap:
    """Masks [B, H, W] at the frame's size from low-res logits [B, 4h, 4w]."""
    return np.stack([geometry.to_size(m, geometry.frame_hw) > 0 for m in logits])


def paired_ious(answers: BoolMap, truth: BoolMap) -> Ious:
    """IoU of each answer with its truth, both [B, H, W]; [B]."""
    overlap = (answers & truth).sum((1, 2))
    union = (answers | truth).sum((1, 2))
    return np.asarray(overlap / np.maximum(union, 1), np.float64)
