"""Segmentation in the wild (SGinW): mask AP of many small sets in COCO's format, and its mean.

SGinW is 25 sets of X-Decoder's authors (arXiv 2212.11270, github.com/microsoft/X-Decoder); the
papers report the mean AP of masks prompted with GroundingDINO's boxes (EfficientViT-SAM,
arXiv 2402.05008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.errors import SourceError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.exports.coco_annotations import load_coco
from maskstream.pipeline.lab.evaluation.coco import coco_images
from maskstream.pipeline.lab.evaluation.mask_ap import (
    MaskApReport,
    evaluate_detections,
    load_detections,
)
from maskstream.pipeline.models.pool import SegmenterPool

ANNOTATIONS = (
    "valid/_annotations_min1cat.coco.json",
    "valid/_annotations.coco.json",
    "_annotations.coco.json",
)
"""Where a set's annotations are, the first that exists; its images lie beside them."""

DETECTIONS = "detections.json"
"""A set's boxes, in COCO's results format."""


@dataclass(frozen=True, slots=True)
class WildSet:
    """A set: its name, its annotations with the images beside them, and its detections."""

    name: str
    annotations: Path
    detections: Path


@dataclass(frozen=True, slots=True)
class WildReport:
    """Mask AP of each set by its name; all of one model."""

    model: str
    sets: Mapping[str, MaskApReport]

    @property
    def mean_ap(self) -> float:
        """Mean over the sets, each counting alike, 0..1."""
        return float(np.mean([report.values["ap"] for report in self.sets.values()]))

    @property
    def images(self) -> int:
        """Images of all sets."""
        return sum(report.images for report in self.sets.values())

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "mean_ap": round(self.mean_ap, 4),
            "sets": {name: report.to_json() for name, report in self.sets.items()},
            "model": self.model,
        }


def find_wild_sets(root: Path) -> list[WildSet]:
    """The sets below `root`, by name: folders with `ANNOTATIONS` and `DETECTIONS`.

    Raises `SourceNotFoundError`, also if a set has only one of the two.
    """
    if not root.is_dir():
        raise SourceNotFoundError(f"there is no folder {root}")
    found = []
    for folder in sorted(folder for folder in root.iterdir() if folder.is_dir()):
        files = [folder / name for name in ANNOTATIONS if (folder / name).is_file()]
        boxes = folder / DETECTIONS
        if files and boxes.is_file():
            found.append(WildSet(folder.name, files[0], boxes))
        elif files:
            raise SourceNotFoundError(f"{folder} has no {DETECTIONS}, the boxes to prompt with")
        elif boxes.is_file():
            raise SourceNotFoundError(f"{folder} has no annotations, such as {ANNOTATIONS[0]}")
    if not found:
        raise SourceNotFoundError(
            f"no folder below {root} has {ANNOTATIONS[0]} and {DETECTIONS}, as sets of SGinW do"
        )
    return found


def evaluate_wild(
    pool: SegmenterPool,
    sets: Sequence[WildSet],
    *,
    model: str,
    single_mask: bool = False,
    on_set: Callable[[str], None] = lambda _: None,
) -> WildReport:
    """Mask AP of each set, as `evaluate_detections` computes it.

    on_set: called with the name of a set when it is done. Raises `SourceError`, which names the
    set.
    """
    reports: dict[str, MaskApReport] = {}
    for wild in sets:
        try:
            reports[wild.name] = _evaluate(pool, wild, model, single_mask=single_mask)
        except SourceError as error:
            raise UnreadableSourceError(f"{wild.name}: {error}") from error
        on_set(wild.name)
    return WildReport(model, reports)


def _evaluate(pool: SegmenterPool, wild: WildSet, model: str, *, single_mask: bool) -> MaskApReport:
    annotations = load_coco(wild.annotations)
    items = coco_images(annotations, wild.annotations.parent)
    detections = load_detections(wild.detections)
    return evaluate_detections(
        pool, annotations, items, detections, model=model, single_mask=single_mask
    )
