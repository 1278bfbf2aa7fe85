"""HOTA of runs with a simulated detector, beside the detector with boxes alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.video.box_tracker import BoxTracker
from maskstream.pipeline.lab.evaluation.video.clips import Clip, ClipEntry
from maskstream.pipeline.lab.evaluation.video.identities import (
    FrameOverlap,
    IdentityScores,
    score_identities,
)
from maskstream.pipeline.lab.evaluation.video.simulated_detector import (
    Faults,
    SimulatedDetector,
    true_boxes,
)
from maskstream.trackers.iou import box_iou
from maskstream.trackers.motion import Vector

FrameBoxes = Mapping[int, Vector]
"""Boxes xyxy of one frame by id."""
COAST_FRAMES = 15  # of the baseline that shows predicted boxes


@dataclass(frozen=True, slots=True)
class DetectorReport:
    """Scores by method: of each clip by its name, and their mean HOTA, DetA and AssA, 0..1."""

    clips: Mapping[str, Mapping[str, IdentityScores]]

    @property
    def means(self) -> Mapping[str, tuple[float, float, float, float]]:
        """HOTA, DetA, AssA and switches a clip, by method."""
        methods = next(iter(self.clips.values())).keys()
        return {m: _mean([scores[m] for scores in self.clips.values()]) for m in methods}

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        keys = ("hota", "detection", "association", "switches")
        return {
            "means": {m: dict(zip(keys, values, strict=True)) for m, values in self.means.items()},
            "hota": {
                name: {m: round(s.hota, 4) for m, s in scores.items()}
                for name, scores in self.clips.items()
            },
        }


def evaluate_detector(
    config: PipelineConfig,
    clips: Sequence[ClipEntry],
    faults: Faults,
    *,
    every: Sequence[int] = (8,),
    seed: int = 0,
    on_run: Callable[[str], None] = lambda _: None,
) -> DetectorReport:
    """Run the pipeline with a detector on every n-th frame, and the baselines with it on all.

    Boxes are compared, as the baselines have no masks. Raises `SourceError`, `ModelError`.
    """
    found: dict[str, dict[str, IdentityScores]] = {}
    for entry in clips:
        clip = entry.load()
        own_seed = zlib.crc32(entry.name.encode())
        detector = SimulatedDetector(clip.truth, faults, (seed, own_seed))
        rows: dict[str, IdentityScores] = {}
        for name, coast in (("boxes, every frame", 0), ("the same, coasting", COAST_FRAMES)):
            rows[name] = _score(clip, _boxes_alone(clip, detector, coast, 1))
        rows[f"boxes, every {every[0]}, coasting"] = _score(
            clip, _boxes_alone(clip, detector, COAST_FRAMES, every[0])
        )
        for interval in every:
            on_run(f"{entry.name}, every {interval}")
            rows[f"maskstream, every {interval}"] = _score(
                clip, _tracked(config, clip, detector, interval)
            )
        found[entry.name] = rows
    return DetectorReport(found)


def _tracked(
    config: PipelineConfig, clip: Clip, detector: SimulatedDetector, every: int
) -> Iterator[FrameBoxes]:
    update = {"detector": config.detector.model_copy(update={"every": every})}
    pipeline = Pipeline(config.without_seeding().model_copy(update=update), detector)
    for result in pipeline.stream(clip.source):
        yield {o.id: np.array(o.box_xyxy) for o in result.objects if o.area}


def _boxes_alone(
    clip: Clip, detector: SimulatedDetector, coast: int, every: int
) -> Iterator[FrameBoxes]:
    tracker = BoxTracker(coast)
    with clip.source.open() as reader:
        rate = float(reader.info.rate or 25)
        for index in clip.truth.frames:
            runs = index % every == 0
            boxes = detector.boxes(index, reader.info.size_hw) if runs else None
            yield tracker.step(boxes, 1 / rate)


def _score(clip: Clip, answers: Iterator[FrameBoxes]) -> IdentityScores:
    overlaps = []
    for index, answer in zip(clip.truth.frames, answers, strict=True):
        truth = true_boxes(clip.truth, index)
        iou = box_iou(_array(truth), _array(answer))
        overlaps.append(FrameOverlap(np.array([*truth], int), np.array([*answer], int), iou))
    return score_identities(overlaps)


def _array(boxes: FrameBoxes) -> Vector:
    return np.array([*boxes.values()], np.float64).reshape(-1, 4)


def _mean(scores: Sequence[IdentityScores]) -> tuple[float, float, float, float]:
    values = [[s.hota, s.detection, s.association, s.switches] for s in scores]
    hota, detection, association, switches = np.mean(values, 0).round(4).tolist()
    return hota, detection, association, switches
