"""COCO and LVIS images: their objects as examples, and mask AP from detection boxes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.exports.coco_annotations import (
    CocoAnnotations,
    CocoImage,
    CocoObject,
    check_list,
    encode_masks,
    read_json,
    require_eval_extra,
)
from maskstream.pipeline.lab.evaluation.examples import (
    Example,
    ImageSet,
    draw_objects,
    read_rgb,
    shape_order,
    spread,
)
from maskstream.pipeline.lab.evaluation.images import OnImage
from maskstream.pipeline.lab.evaluation.scores import frame_of, full_size
from maskstream.pipeline.lab.training.data import LabeledImage, is_held_out
from maskstream.pipeline.models.pool import SegmenterPool
from maskstream.pipeline.segmenter.model import PromptBatch
from maskstream.pipeline.types import RgbImage, SizeHW

MAX_DETECTIONS = {"coco": 100, "lvis": 300}
"""Maximum detections per image, those with the highest scores."""

_BATCH = 16  # full-size masks in memory at once
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


@dataclass(frozen=True, slots=True)
class CocoItem:
    """An annotated image: its file, and its objects with a mask, without crowds."""

    file: Path
    image: CocoImage
    objects: tuple[CocoObject, ...]

    def size_hw(self) -> SizeHW:
        """Height and width as annotated, pixels."""
        return self.image.size_hw

    def load(self) -> Example:
        """Read the image and the masks of the evaluated objects. Raises `SourceError`."""
        rgb = self.read()
        height, width = self.image.size_hw
        masks = np.zeros((len(self.objects), height, width), bool)
        for mask, item in zip(masks, self.objects, strict=True):
            mask[:] = item.mask(self.image.size_hw)
        drawn = draw_objects(masks.sum((1, 2)), height * width, self.file)
        return Example(rgb, masks[drawn])

    def read(self) -> RgbImage:
        """Read only the image. Raises `SourceError`."""
        rgb = read_rgb(self.file)
        if rgb.shape[:2] != self.image.size_hw:
            (height, width), (h, w) = rgb.shape[:2], self.image.size_hw
            raise UnreadableSourceError(
                f"{self.file} is {width}x{height} pixels, its annotations are for {w}x{h}"
            )
        return rgb


def coco_images(
    annotations: CocoAnnotations,
    image_root: Path,
    *,
    held_out_percent: int = 0,
    images: int | None = None,
) -> list[CocoItem]:
    """The images below `image_root`; options as `find_label_maps`. Raises `SourceError`."""
    if not image_root.is_dir():
        raise SourceNotFoundError(f"there is no folder {image_root}")
    found = [
        CocoItem(_file(image_root, image), image, tuple(annotations.masked_objects(image)))
        for image in annotations.images
    ]
    if held_out_percent:
        found = [i for i in found if is_held_out(LabeledImage(i.file, i.file), held_out_percent)]
    return list(spread(found, images))


def as_image_set(items: Sequence[CocoItem], name: str) -> ImageSet:
    """Images as one source; those without objects are left out."""
    return ImageSet(name, tuple(item for item in items if item.objects))


def _file(image_root: Path, image: CocoImage) -> Path:
    """Path of an image: as annotated if that file exists, else by its file name alone."""
    file = image_root / image.path
    return file if file.is_file() else image_root / image.path.name


def load_detections(file: Path) -> list[Detection]:
    """Read boxes in COCO's results format. Raises `SourceError`."""
    return check_list(Detection, read_json(file), str(file))


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
    on_image: OnImage = lambda _: None,
) -> MaskApReport:
    """Prompt with each detection box, give the mask the box's score, and compute COCO's mask AP.

    This is how SAM (arXiv 2304.02643, section 7.4) and TinySAM report zero-shot instance
    segmentation. LVIS annotations use LVIS's AP. Raises `SourceError`.
    """
    require_eval_extra("COCO's AP")
    begun = time.perf_counter()
    limit = MAX_DETECTIONS["lvis" if annotations.is_lvis else "coco"]
    by_image: dict[int, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        kept = by_image.setdefault(detection.image_id, [])
        if len(kept) < limit:
            kept.append(detection)
    results: list[dict[str, Any]] = []
    for index in shape_order(item.size_hw() for item in items):
        item = items[index]
        results += _segment(pool, item, by_image.get(item.image.id, []))
        on_image(item.file.name)
    if not results:
        raise UnreadableSourceError("none of the detections lies on one of the images")
    values = _average_precision(annotations, items, results, limit)
    if not values:
        raise UnreadableSourceError("the images have no annotated object of a known category")
    seconds = time.perf_counter() - begun
    return MaskApReport(model, values, len(items), len(results), seconds)


def _segment(
    pool: SegmenterPool, item: CocoItem, detections: Sequence[Detection]
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
    for start in range(0, len(inside), _BATCH):
        part = inside[start : start + _BATCH]
        decoded = segmenter.decode(features, PromptBatch.boxes(boxes[part]))
        masks = full_size(segmenter.geometry, decoded.masks[:, 0])
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


def _average_precision(
    annotations: CocoAnnotations,
    items: Sequence[CocoItem],
    results: list[dict[str, Any]],
    limit: int,
) -> dict[str, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_truth(annotations, items))
    evaluator = COCOeval_faster(
        truth, truth.loadRes(results), "segm", lvis_style=annotations.is_lvis
    )
    evaluator.params.maxDets = [limit] if annotations.is_lvis else [1, 10, limit]
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    labels = _LABELS | _LVIS_LABELS if annotations.is_lvis else _LABELS
    figures = evaluator.stats_as_dict
    values = {name: round(float(figures[label]), 4) for name, label in labels.items()}
    return {name: value for name, value in values.items() if value >= 0}


def _truth(annotations: CocoAnnotations, items: Sequence[CocoItem]) -> dict[str, Any]:
    """Annotations of the evaluated images in the library's format, with masks as RLE."""
    images, objects = [], []
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
                objects.append(_object(found, image))
    categories = [asdict(category) for category in annotations.categories]
    return {"images": images, "annotations": objects, "categories": categories}


def _object(found: CocoObject, image: CocoImage) -> dict[str, Any]:
    mask = found.mask(image.size_hw)
    (rle,) = encode_masks(mask[None])
    return {
        "id": found.id,
        "image_id": image.id,
        "category_id": found.category_id,
        "segmentation": rle,
        "area": float(mask.sum()) if found.area is None else found.area,
        "iscrowd": found.iscrowd,
    }
