"""`bench everything`: the head, TinySAM's hierarchical grid and SAM's plain one, on images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.evaluation.examples import BoolMap, Example, ImageSet
from maskstream.pipeline.lab.evaluation.scores import FOUND_IOU, frame_of, full_size
from maskstream.pipeline.models.pool import SegmenterPool
from maskstream.pipeline.objectness.model import ObjectnessModel
from maskstream.pipeline.segmenter.everything import (
    GRIDS,
    EverythingChoice,
    EverythingSettings,
    Grid,
    find_everything,
)
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.model import PromptBatch, Segmenter
from maskstream.pipeline.segmenter.proposals import Proposal
from maskstream.trackers.iou import paired_mask_iou

SECONDS_GOAL = 2.0
"""Minimum speed-up of the hierarchical grid."""

RECALL_GOAL = 1.0
"""Maximum loss of recall of the hierarchical grid, in percentage points."""

_SETTINGS = {
    "coarse_points_per_side",
    "fine_points_per_side",
    "iou_min",
    "stability_min",
    "stability_offset",
    "done_logit",
    "done_masks",
    "neighbor_min",
    "duplicate_iou",
}
"""Settings of everything mode in the report: all except the limits on areas."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class GridFigures:
    """Results of one grid over all images.

    prompts: decoded. masks: kept. seconds: of encoding, decoding and filtering. recall: share of
    the objects that have a mask with an IoU of at least `FOUND_IOU`.
    """

    prompts: int
    masks: int
    seconds: float
    recall: float


@dataclass(frozen=True, slots=True)
class EverythingReport:
    """All grids on the same images, with the same thresholds.

    head: the boxes of the objectness head; None if it cannot read the model's features.
    """

    model: str
    settings: EverythingSettings
    images: int
    objects: int
    hierarchical: GridFigures
    plain: GridFigures
    head: GridFigures | None = None

    @property
    def times_faster(self) -> float:
        """Seconds of the plain grid divided by those of the hierarchical one."""
        return self.plain.seconds / self.hierarchical.seconds

    @property
    def recall_lost(self) -> float:
        """Recall of the plain grid minus that of the hierarchical one, in percentage points."""
        return round(100 * (self.plain.recall - self.hierarchical.recall), 2)

    @property
    def reached(self) -> bool:
        """Whether both goals are reached and the plain grid finds any object."""
        fast = self.times_faster >= SECONDS_GOAL
        return fast and self.recall_lost <= RECALL_GOAL and self.plain.recall > 0

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "model": self.model,
            "settings": self.settings.model_dump(include=_SETTINGS),
            "pictures": self.images,
            "objects": self.objects,
            "hierarchical": asdict(self.hierarchical),
            "plain": asdict(self.plain),
            "head": None if self.head is None else asdict(self.head),
            "times_faster": round(self.times_faster, 3),
            "recall_lost": self.recall_lost,
            "reached": self.reached,
        }


def bench_everything(
    pool: SegmenterPool,
    sets: Sequence[ImageSet],
    choice: EverythingChoice,
    *,
    head: ObjectnessModel | None = None,
    on_image: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> EverythingReport:
    """Run all grids on every image of every set, alternating which is first.

    head: proposes boxes from the features of the pool's model; None: only grids of points.
    on_image: called with the set's name after each image. Raises `SourceError`, also if no image
    has an object to evaluate.
    """
    grids = [grid for grid in GRIDS if grid != "head" or head is not None]
    trials: dict[Grid, list[_Trial]] = {grid: [] for grid in grids}
    for images in sets:
        for item in images.items:
            example = item.load()
            if len(example.masks):
                height, width, _ = example.rgb.shape
                segmenter = pool.for_size((height, width))
                settings = choice.settings(segmenter.card)
                turns = grids if len(trials["plain"]) % 2 else grids[::-1]
                _warm_up(segmenter, example)
                for grid in turns:
                    used = head if grid == "head" else None
                    trials[grid].append(_try(segmenter, example, settings, grid, used, clock))
            on_image(images.name)
    if not trials["plain"]:
        raise UnreadableSourceError("none of the images has an object that can be evaluated")
    return EverythingReport(
        model=segmenter.card.name,
        settings=settings,
        images=len(trials["plain"]),
        objects=sum(len(trial.found) for trial in trials["plain"]),
        hierarchical=_figures(trials["hierarchical"]),
        plain=_figures(trials["plain"]),
        head=_figures(trials["head"]) if head is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """One grid on one image. found: bool [P], whether it found each object."""

    prompts: int
    masks: int
    seconds: float
    found: BoolMap


def _warm_up(segmenter: Segmenter, example: Example) -> None:
    """Run the network once, because the first run at a new size is slower."""
    features = segmenter.encode(frame_of(example.rgb))
    segmenter.decode(features, PromptBatch.points(np.zeros((8, 1, 2))))


def _try(
    segmenter: Segmenter,
    example: Example,
    settings: EverythingSettings,
    grid: Grid,
    head: ObjectnessModel | None,
    clock: Clock,
) -> _Trial:
    begun = clock()
    features = segmenter.encode(frame_of(example.rgb))
    boxes = head.propose(features, segmenter.geometry) if head is not None else None
    proposals, prompts = find_everything(segmenter, features, settings, grid, boxes)
    seconds = clock() - begun
    found = _found(segmenter.geometry, proposals, example.masks)
    return _Trial(prompts, len(proposals), seconds, found)


def _found(geometry: InputGeometry, proposals: Sequence[Proposal], truth: BoolMap) -> BoolMap:
    """Whether each of the masks [P, H, W] has a matching proposal, bool [P]."""
    best = np.zeros(len(truth))
    for proposal in proposals:
        answer = full_size(geometry, proposal.logits[None])
        best = np.maximum(best, paired_mask_iou(answer, truth))
    return best >= FOUND_IOU


def _figures(trials: Sequence[_Trial]) -> GridFigures:
    return GridFigures(
        prompts=sum(trial.prompts for trial in trials),
        masks=sum(trial.masks for trial in trials),
        seconds=round(sum(trial.seconds for trial in trials), 3),
        recall=round(float(np.concatenate([trial.found for trial in trials]).mean()), 4),
    )
