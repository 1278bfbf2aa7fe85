"""mIoU from ground-truth boxes and from 1, 3 and 5 clicks, by object size, as the papers report it.

SAM's "single point valid mask" evaluation (arXiv 2304.02643, section 7.1) as the authors of
EfficientViT-SAM run it (arXiv 2402.05008, `eval_efficientvit_sam_model.py`): every annotated object
counts alike, crowds included; of the decoder's three candidates the one with the highest predicted
IoU is taken, of FastSAM its one answer (`chosen_logits`); each click lies deepest in what is wrong
(`clicks`), and no mask prompt is given.
Boxes are tight around the mask; COCO's own are those of the polygon, less than a pixel away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.evaluation.clicks import Clicks, first_clicks, next_clicks
from maskstream.pipeline.lab.evaluation.examples import (
    AnnotatedImage,
    BoolMap,
    ImageSet,
    shape_order,
)
from maskstream.pipeline.lab.evaluation.images import SIZES, OnImage
from maskstream.pipeline.lab.evaluation.scores import (
    DECODED_AT_ONCE,
    Ious,
    chosen_logits,
    frame_of,
    full_size,
)
from maskstream.pipeline.lab.peak_memory import PeakMemory
from maskstream.pipeline.models.pool import SegmenterPool
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.segmenter.model import PromptBatch, Segmenter
from maskstream.trackers.iou import paired_mask_iou

CLICKS = (1, 3, 5)
"""Numbers of clicks that are reported."""

PROMPTS = ("box", *(f"click{count}" for count in CLICKS))

ALL = "all"
"""Name of the mean over the objects of every size."""


@dataclass(frozen=True, slots=True)
class PromptedReport:
    """mIoU, 0..1, by prompt (`PROMPTS`) and by size (`ALL`, `SIZES`).

    Sizes without any object are omitted. objects: counts by size. images: those with objects.
    seconds: wall time. peak_mb: peak memory of the process, MiB.
    """

    model: str
    values: Mapping[str, Mapping[str, float]]
    objects: Mapping[str, int]
    images: int
    seconds: float
    peak_mb: float

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "mean_iou": {prompt: dict(by_size) for prompt, by_size in self.values.items()},
            "objects": dict(self.objects),
            "images": self.images,
            "model": self.model,
            "seconds": round(self.seconds, 1),
            "peak_memory_mb": round(self.peak_mb, 1),
        }


def evaluate_prompts(
    pool: SegmenterPool,
    sets: Sequence[ImageSet],
    *,
    model: str,
    single_mask: bool = False,
    on_image: OnImage = lambda _: None,
) -> PromptedReport:
    """Prompt every object of every image with its box and with clicks.

    single_mask: take the decoder's answer for an unambiguous prompt instead of the best candidate.
    on_image: called with the set's name after each image. Raises `SourceError`, also if there is
    no object.
    """
    begun, memory = time.perf_counter(), PeakMemory()
    visits = [(images.name, item) for images in sets for item in images.items]
    scores: list[Mapping[str, Ious]] = []
    areas = []
    for index in shape_order(item.size_hw() for _, item in visits):
        name, item = visits[index]
        found = item.load_all()
        if len(found.masks):
            height, width, _ = found.rgb.shape
            segmenter = pool.for_size((height, width))
            scores.append(_score(segmenter, found, single_mask=single_mask))
            areas.append(found.areas)
        on_image(name)
    if not scores:
        raise UnreadableSourceError("none of the images has an annotated object")
    area = np.concatenate(areas)
    of_size = {ALL: np.ones(len(area), np.bool_)}
    of_size |= {name: (area >= low) & (area < high) for name, (low, high) in SIZES.items()}
    of_size = {name: chosen for name, chosen in of_size.items() if chosen.any()}
    values = {}
    for prompt in PROMPTS:
        ious = np.concatenate([of_image[prompt] for of_image in scores])
        values[prompt] = {
            name: round(float(ious[chosen].mean()), 4) for name, chosen in of_size.items()
        }
    counts = {name: int(chosen.sum()) for name, chosen in of_size.items()}
    seconds = time.perf_counter() - begun
    return PromptedReport(model, values, counts, len(scores), seconds, memory.read_mb())


def _score(segmenter: Segmenter, found: AnnotatedImage, *, single_mask: bool) -> dict[str, Ious]:
    """IoU [P] of the objects of one image, by prompt."""
    features = segmenter.encode(frame_of(found.rgb))

    def answers(prompts: PromptBatch) -> BoolMap:
        decoded = segmenter.decode(features, prompts)
        logits = chosen_logits(features, decoded, single_mask=single_mask)
        return full_size(segmenter.geometry, logits)

    parts: dict[str, list[Ious]] = {prompt: [] for prompt in PROMPTS}
    for start in range(0, len(found.masks), DECODED_AT_ONCE):
        truth = found.masks[start : start + DECODED_AT_ONCE]
        masks = answers(PromptBatch.boxes(boxes_of(truth)))
        parts["box"].append(paired_mask_iou(masks, truth))
        clicks: Clicks | None = None
        for count in range(1, max(CLICKS) + 1):
            clicks = clicks.and_then(next_clicks(masks, truth)) if clicks else first_clicks(truth)
            masks = answers(PromptBatch.points(clicks.xy, clicks.labels))
            if count in CLICKS:
                parts[f"click{count}"].append(paired_mask_iou(masks, truth))
    return {prompt: np.concatenate(ious) for prompt, ious in parts.items()}
