"""A detector simulated from true masks: it misses, sees false objects, and its boxes jitter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.lab.evaluation.video.clips import Truth
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.types import Frame, SizeHW

_LEAST_AREA = 100  # pixels of an object that can be detected
_LABELS = ("even", "odd")  # by the number of the object


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a simulated detector.

    misses, confusions: shares of the objects that are not found, or get another class. false: mean
    number of false boxes a frame. jitter: standard deviation of edges, in sides of the box.
    """

    misses: float = 0.3
    false: float = 0.5
    jitter: float = 0.05
    confusions: float = 0.05


class SimulatedDetector:
    """Detections of a clip with true masks. The same seed and frame give the same boxes."""

    name = "simulated"
    labels: Sequence[str] = _LABELS
    frames: Collection[int] | None = None

    def __init__(self, truth: Truth, faults: Faults, seed: tuple[int, ...]) -> None:
        self._truth, self._faults, self._seed = truth, faults, seed

    def check(self, size_hw: SizeHW) -> None:
        """Nothing to check."""

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """True boxes with faults, then false ones."""
        return self.boxes(frame.index, frame.size_hw)

    def boxes(self, index: int, size_hw: SizeHW) -> list[DetectedBox]:
        """Detections on the frame with this index."""
        rng = np.random.default_rng((*self._seed, index))
        found = []
        for number, box in sorted(true_boxes(self._truth, index).items()):
            missed = rng.random() < self._faults.misses
            sides = np.tile(box[2:] - box[:2], 2)
            moved = box + rng.normal(0, self._faults.jitter, 4) * sides
            kind = number + (rng.random() < self._faults.confusions)
            score = 0.45 + 0.5 * rng.random()
            if not missed:
                found.append(_detected(moved, _LABELS[kind % 2], score))
        for _ in range(rng.poisson(self._faults.false)):
            found.append(_false(rng, size_hw))
        return found


def true_boxes(truth: Truth, index: int) -> dict[int, npt.NDArray[np.float64]]:
    """Boxes of the visible objects of a frame, xyxy by number."""
    labels = truth.at(index)
    numbers = [int(n) for n in np.unique(labels) if n and (labels == n).sum() >= _LEAST_AREA]
    if not numbers:
        return {}
    boxes = boxes_of(np.stack([labels == n for n in numbers])).astype(np.float64)
    return dict(zip(numbers, boxes, strict=True))


def _detected(box: npt.NDArray[np.float64], label: str, score: float) -> DetectedBox:
    x0, y0, x1, y1 = (float(edge) for edge in box)
    return DetectedBox((x0, y0, x1, y1), label, float(score))


def _false(rng: np.random.Generator, size_hw: SizeHW) -> DetectedBox:
    """A box anywhere; its score is lower than those of true ones, but not clearly."""
    height, width = size_hw
    side = rng.uniform(0.1, 0.4, 2) * height
    corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    box = np.concatenate([corner, corner + side])
    return _detected(box, _LABELS[rng.integers(2)], 0.3 + 0.45 * rng.random())
