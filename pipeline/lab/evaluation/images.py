"""`eval images`: box, clicks and everything mode on images with known masks, by source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.evaluation.examples import ImageSet, shape_order, spread
from maskstream.pipeline.lab.evaluation.scores import (
    MEASURES,
    ZOOM_MEASURES,
    ImageScores,
    score_image,
)
from maskstream.pipeline.lab.evaluation.sheets import AnswerSheets
from maskstream.pipeline.lab.peak_memory import PeakMemory
from maskstream.pipeline.models.pool import SegmenterPool
from maskstream.pipeline.objectness.model import ObjectnessModel

EVERYTHING_IMAGES = 10
"""Maximum images per source on which everything mode runs."""

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
"""COCO's size classes: range of the area in pixels, upper bound exclusive."""

RECALL = "everything_recall"

OnImage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SourceScores:
    """Means over the objects of one source, 0..1, by name of the measure.

    Measures without any object are omitted. images: those with objects. small: objects that were
    also prompted in a crop; None without `zoom`.
    """

    images: int
    objects: int
    values: Mapping[str, float]
    small: int | None = None


@dataclass(frozen=True, slots=True)
class ImagesReport:
    """What `evaluate_images` measured.

    macro: means over the sources. excluded: sources without an object to evaluate. seconds: wall
    time. peak_mb: peak memory of the process during the evaluation, MiB.
    """

    model: str
    macro: Mapping[str, float]
    sources: Mapping[str, SourceScores]
    excluded: tuple[str, ...]
    seconds: float
    peak_mb: float

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        sources = {
            name: {**scores.values, "images": scores.images, "objects": scores.objects}
            | ({} if scores.small is None else {"small_objects": scores.small})
            for name, scores in self.sources.items()
        }
        return {
            "macro": dict(self.macro),
            "sources": sources,
            "left_out": list(self.excluded),
            "model": self.model,
            "seconds": round(self.seconds, 1),
            "peak_memory_mb": round(self.peak_mb, 1),
        }


def evaluate_images(
    pool: SegmenterPool,
    sets: Sequence[ImageSet],
    *,
    model: str,
    everything: bool = True,
    head: ObjectnessModel | None = None,
    zoom: bool = False,
    sheets: AnswerSheets | None = None,
    on_image: OnImage = lambda _: None,
) -> ImagesReport:
    """Evaluate a model on every image of every set, in the order of the images' shapes.

    head: proposes boxes in everything mode; None: all prompts are points. zoom: also prompt small
    objects in a crop around them (`ZOOM_MEASURES`). sheets: collect predicted masks. on_image:
    called with the set's name after each image. Raises `SourceError`, also if no image has an
    object to evaluate.
    """
    begun, memory = time.perf_counter(), PeakMemory()
    found: dict[tuple[int, int], ImageScores] = {}
    for place, searched in _visits(sets):
        images = sets[place[0]]
        example = images.items[place[1]].load()
        if len(example.masks):
            height, width, _ = example.rgb.shape
            found[place] = score_image(
                pool.for_size((height, width)),
                example,
                everything=everything and searched,
                head=head,
                zoom=pool.for_size if zoom else None,
                on_answers=sheets.of(images.name, example) if sheets else lambda *_: None,
            )
        on_image(images.name)
    sources: dict[str, SourceScores] = {}
    for number, images in enumerate(sets):
        scores = [found[place] for place in sorted(found) if place[0] == number]
        if scores:
            sources[images.name] = _summary(scores)
    if not sources:
        raise UnreadableSourceError("none of the images has an object that can be evaluated")
    names = dict.fromkeys(name for scores in sources.values() for name in scores.values)
    macro = {
        name: _mean([s.values[name] for s in sources.values() if name in s.values])
        for name in names
    }
    excluded = tuple(images.name for images in sets if images.name not in sources)
    seconds = time.perf_counter() - begun
    return ImagesReport(model, macro, sources, excluded, seconds, memory.read_mb())


def _visits(sets: Sequence[ImageSet]) -> list[tuple[tuple[int, int], bool]]:
    """All images, by shape: number of the set and of the item, whether everything mode runs."""
    places = [(number, item) for number, s in enumerate(sets) for item in range(len(s.items))]
    searched = {
        (number, item)
        for number, images in enumerate(sets)
        for item in spread(range(len(images.items)), EVERYTHING_IMAGES)
    }
    sizes = (sets[number].items[item].size_hw() for number, item in places)
    return [(places[i], places[i] in searched) for i in shape_order(sizes)]


def _summary(scores: Sequence[ImageScores]) -> SourceScores:
    areas = np.concatenate([s.areas for s in scores])
    values = {name: _mean(np.concatenate([s.ious[name] for s in scores])) for name in MEASURES}
    boxes = np.concatenate([s.ious["box"] for s in scores])
    for size, (low, high) in SIZES.items():
        of_size = (areas >= low) & (areas < high)
        if of_size.any():
            values[f"box_{size}"] = _mean(boxes[of_size])
    found = [s.found for s in scores if s.found is not None]
    if found:
        values[RECALL] = _mean(np.concatenate(found))
    zoomed = [s.zoomed for s in scores if s.zoomed is not None]
    small = sum(len(z["zoom_box"]) for z in zoomed) if zoomed else None
    if small:
        values |= {n: _mean(np.concatenate([z[n] for z in zoomed])) for n in ZOOM_MEASURES}
    return SourceScores(len(scores), len(areas), values, small)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), 4)
