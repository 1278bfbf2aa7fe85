"""Mask AP of COCO and LVIS from detection boxes, as the papers report it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.detectors.detector import listed
from maskstream.pipeline.detectors.results_file import JSON_LINES
from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.exports.coco_annotations import (
    CocoAnnotations,
    CocoImage,
    CocoObject,
    check_list,
    encode_masks,
    read_json,
    require_eval_extra,
)
from maskstream.pipeline.lab.evaluation.coco import CocoItem
from maskstream.pipeline.lab.evaluation.examples import shape_order
from maskstream.pipeline.lab.evaluation.images import OnImage
from maskstream.pipeline.lab.evaluation.scores import (
    DECODED_AT_ONCE,
    chosen_logits,
    frame_of,
    full_size,
)
from maskstream.pipeline.models.pool import SegmenterPool
from maskstream.pipeline.segmenter.model import PromptBatch

logger = logging.getLogger(__name__)

MAX_DETECTIONS = {"coco": 100, "lvis": 300}
"""Maximum detections per image, those with the highest scores."""

_LABELS = {
    "ap": "AP_all",
    "ap50": "AP_50",
    "ap75": "AP_75",
    "ap_small": "AP_small",
    "ap_medium": "AP_medium",
    "ap_large": "AP_large",
}
_LVIS_LABELS = {"ap_rare": "APr", "ap_common": "APc", "ap_frequent": "APf"}


@dataclass(frozen=True, slots=True)
class Detection:
    """A detected box. bbox: x, y, width, height in pixels; score: the detector's confidence."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


def load_detections(file: Path) -> list[Detection]:
    """Read boxes in COCO's results format. Raises `SourceError`."""
    expected = "a JSON list of COCO results (image_id, category_id, bbox, score) is expected"
    if file.suffix.lower() in JSON_LINES:
        raise UnreadableSourceError(f"{file} is a file of JSON lines, but {expected}")
    values = read_json(file)
    if not isinstance(values, list):
        raise UnreadableSourceError(f"{file} holds no list, but {expected}")
    detections = check_list(Detection, values, str(file))
    for number, detection in enumerate(detections):
        if not all(map(math.isfinite, (*detection.bbox, detection.score))):
            raise UnreadableSourceError(
                f"{file}: detection {number} has a box or a score that is not finite"
            )
        if min(detection.bbox[2:]) < 0:
            raise UnreadableSourceError(
                f"{file}: detection {number} has a box of negative width or height; bbox is x, y, "
                "width, height"
            )
    return detections


@dataclass(frozen=True, slots=True)
class MaskApReport:
    """Mask AP by name, 0..1; measures without any annotated object are omitted."""

    model: str
    values: Mapping[str, float]
    images: int
    detections: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "mask_ap": dict(self.values),
            "images": self.images,
            "detections": self.detections,
            "model": self.model,
            "seconds": round(self.seconds, 1),
        }


def evaluate_detections(
    pool: SegmenterPool,
    annotations: CocoAnnotations,
    items: Sequence[CocoItem],
    detections: Sequence[Detection],
    *,
    model: str,
    single_mask: bool = False,
    on_image: OnImage = lambda _: None,
) -> MaskApReport:
    """Prompt with each detection box, give the mask the box's score, and compute COCO's mask AP.

    This is how SAM (arXiv 2304.02643, section 7.4), TinySAM and EfficientViT-SAM report zero-shot
    instance segmentation. single_mask: take the decoder's answer for an unambiguous prompt instead
    of the candidate with the highest predicted IoU, which the papers take. LVIS annotations use
    LVIS's AP. Raises `SourceError`.
    """
    require_eval_extra("COCO's AP")
    begun = time.perf_counter()
    _check_categories(annotations, detections)
    limit = _limit(annotations)
    by_image: dict[int, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        kept = by_image.setdefault(detection.image_id, [])
        if len(kept) < limit:
            kept.append(detection)
    results: list[dict[str, Any]] = []
    for index in shape_order(item.size_hw() for item in items):
        item = items[index]
        found = by_image.get(item.image.id, [])
        results += _segment(pool, item, found, single_mask=single_mask)
        on_image(item.file.name)
    if not results:
        raise UnreadableSourceError("none of the detections lies on one of the images")
    values = average_precision(annotations, items, results)
    if not values:
        raise UnreadableSourceError("the images have no annotated object of a known category")
    seconds = time.perf_counter() - begun
    return MaskApReport(model, values, len(items), len(results), seconds)


def _check_categories(annotations: CocoAnnotations, detections: Sequence[Detection]) -> None:
    """Say which categories the annotations lack. Raises `SourceError` if they lack all."""
    found = {detection.category_id for detection in detections}
    unknown = sorted(found - {category.id for category in annotations.categories})
    if not unknown:
        return
    named = listed([str(number) for number in unknown])
    if len(unknown) == len(found):
        raise UnreadableSourceError(
            f"the annotations have none of the detections' categories ({named}); both must number "
            "them alike"
        )
    logger.warning("detections of categories that the annotations lack do not count: %s", named)


def _segment(
    pool: SegmenterPool, item: CocoItem, detections: Sequence[Detection], *, single_mask: bool
) -> list[dict[str, Any]]:
    """COCO results with masks; boxes outside the image or without area are skipped."""
    height, width = item.image.size_hw
    boxes = np.array([d.bbox for d in detections], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    inside = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    if not len(inside):
        return []
    segmenter = pool.for_size((height, width))
    features = segmenter.encode(frame_of(item.read()))
    results = []
    for start in range(0, len(inside), DECODED_AT_ONCE):
        part = inside[start : start + DECODED_AT_ONCE]
        decoded = segmenter.decode(features, PromptBatch.boxes(boxes[part]))
        logits = chosen_logits(features, decoded, single_mask=single_mask)
        masks = full_size(segmenter.geometry, logits)
        results += [
            {
                "image_id": item.image.id,
                "category_id": detections[i].category_id,
                "segmentation": rle,
                "score": detections[i].score,
            }
            for i, rle in zip(part, encode_masks(masks), strict=True)
        ]
    return results


def average_precision(
    annotations: CocoAnnotations, items: Sequence[CocoItem], results: list[dict[str, Any]]
) -> dict[str, float]:
    """Mask AP of the items by name, 0..1; measures without any annotated object are omitted.

    results: in COCO's results format, with masks as run lengths; at most `MAX_DETECTIONS` of an
    image count. Raises `SourceError`.
    """
    require_eval_extra("COCO's AP")
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_truth(annotations, items))
    evaluator = COCOeval_faster(
        truth,
        truth.loadRes([dict(result) for result in results]),
        "segm",
        lvis_style=annotations.is_lvis,
    )
    limit = _limit(annotations)
    evaluator.params.maxDets = [limit] if annotations.is_lvis else [1, 10, limit]
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    labels = _LABELS | _LVIS_LABELS if annotations.is_lvis else _LABELS
    figures = evaluator.stats_as_dict
    values = {name: round(float(figures[label]), 4) for name, label in labels.items()}
    return {name: value for name, value in values.items() if value >= 0}


def _limit(annotations: CocoAnnotations) -> int:
    return MAX_DETECTIONS["lvis" if annotations.is_lvis else "coco"]


def _truth(annotations: CocoAnnotations, items: Iterable[CocoItem]) -> dict[str, Any]:
    """Annotations of the evaluated images in the library's format, with masks as RLE.

    They are numbered anew from 1: COCO's code takes an object of number 0 for none.
    """
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for item in items:
        image = item.image
        images.append(
            {
                "id": image.id,
                "height": image.height,
                "width": image.width,
                "neg_category_ids": list(image.neg_category_ids),
                "not_exhaustive_category_ids": list(image.not_exhaustive_category_ids),
            }
        )
        for found in annotations.objects.get(image.id, ()):
            if found.segmentation:
                objects.append(_object(found, image, len(objects) + 1))
    categories = [asdict(category) for category in annotations.categories]
    return {"images": images, "annotations": objects, "categories": categories}


def _object(found: CocoObject, image: CocoImage, number: int) -> dict[str, Any]:
    mask = found.mask(image.size_hw)
    (rle,) = encode_masks(mask[None])
    return {
        "id": number,
        "image_id": image.id,
        "category_id": found.category_id,
        "segmentation": rle,
        "area": float(mask.sum()) if found.area is None else found.area,
        "iscrowd": found.iscrowd,
    }
