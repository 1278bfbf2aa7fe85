"""The seam of detectors, what they return, and the check of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import DetectorError
from maskstream.pipeline.types import Frame, RgbImage, SizeHW

FloatMap = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class DetectedBox:
    """One detection.

    xyxy: pixels of the displayed image, right and bottom exclusive. label: its class. score: 0..1.
    mask: logits float32 [h, w] of the whole image at any resolution, above 0 inside; None if the
    detector gives boxes only.
    """

    xyxy: Box
    label: str
    score: float
    mask: FloatMap | None = None


@runtime_checkable
class Detector(Protocol):
    """Finds objects of known classes on an image."""

    @property
    def name(self) -> str:
        """For messages and the store."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """All classes that it can give; empty if that is not known."""
        ...

    @property
    def frames(self) -> Collection[int] | None:
        """Frame indices for which it has an answer; None: any."""
        ...

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """Detections of one frame, in any order. Raises `DetectorError`."""
        ...

    def check(self, size_hw: SizeHW) -> None:
        """Check before a run that it fits images of this size. Raises `DetectorError`."""
        ...


class FunctionDetector:
    """A detector from a function of an RGB image, uint8 [H, W, 3], that returns `DetectedBox`es.

    >>> detector = FunctionDetector(lambda rgb: [DetectedBox((8, 8, 40, 60), "cup", 0.9)])
    """

    frames: Collection[int] | None = None

    def __init__(
        self,
        function: Callable[[RgbImage], Iterable[DetectedBox]],
        *,
        labels: Sequence[str] = (),
        name: str = "",
    ) -> None:
        self.name = name or getattr(function, "__qualname__", type(function).__name__)
        self.labels = tuple(labels)
        self._function = function

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """Call the function with the image at its displayed size."""
        found = list(self._function(frame.rgb()))
        for each in found:
            if not isinstance(each, DetectedBox):
                raise DetectorError(
                    f"the detector {self.name} must return DetectedBox objects, not "
                    f"{type(each).__name__}"
                )
        return found

    def check(self, size_hw: SizeHW) -> None:
        """Nothing to check."""


class ChosenDetections:
    """A detector reduced to what is wanted: its classes and least score; boxes are checked.

    classes: names; empty: all. max_boxes: the best of a frame.

    Raises:
        DetectorError: there is no such class.
    """

    def __init__(
        self, detector: Detector, classes: Sequence[str], score_min: float, max_boxes: int
    ) -> None:
        unknown = [name for name in classes if detector.labels and name not in detector.labels]
        if unknown:
            raise DetectorError(
                f"the detector {detector.name} has no class '{unknown[0]}'; it has "
                f"{listed(detector.labels)}"
            )
        self.name, self.frames = detector.name, detector.frames
        self.labels = tuple(classes) or tuple(detector.labels)
        self.check = detector.check
        self._detector = detector
        self._classes = frozenset(classes)
        self._score_min = score_min
        self._max_boxes = max_boxes

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """The wanted detections, the best first, clipped to the image."""
        found = [
            clipped
            for each in self._detector.detect(frame)
            if (clipped := checked(each, frame.size_hw, self.name)) is not None
            and clipped.score >= self._score_min
            and (not self._classes or clipped.label in self._classes)
        ]
        found.sort(key=lambda each: -each.score)
        return found[: self._max_boxes]


class NamedFrames:
    """Which of the frames that a detector names (a file of detections) have come."""

    def __init__(self, detector: Detector | None) -> None:
        named = None if detector is None else detector.frames
        self._name = "" if detector is None else detector.name
        self._required = named is not None
        self._awaited: Collection[int] = named or ()
        self._met = self._passed = 0
        self._last = -1

    def passed(self, frame: Frame) -> None:
        """A frame has come."""
        self._passed += 1
        self._met += frame.index in self._awaited
        self._last = max(self._last, frame.index)

    def check(self) -> None:
        """Raise `DetectorError` if all frames have come, and none was named."""
        if self._required and not self._met:
            raise DetectorError(
                f"none of the frames of {self._name} is among the {self._passed} frames of this "
                "run; check --start, --end and the file's frame numbers"
            )

    @property
    def note(self) -> str:
        """Says of named frames that they lie after the last one that came; else empty."""
        later = sum(index > self._last for index in self._awaited)
        if not later:
            return ""
        return (
            f"{self._name} names frames after the last one of this run, {self._last}, which were "
            f"not used: {later} of {len(self._awaited)}"
        )


def checked(box: DetectedBox, size_hw: SizeHW, name: str) -> DetectedBox | None:
    """A detection clipped to an image of this size; None if nothing of it lies inside.

    Raises `DetectorError` if it is malformed: not four numbers, not finite, a score outside 0..1.
    """
    if len(box.xyxy) != 4 or not all(map(math.isfinite, (*box.xyxy, box.score))):
        raise DetectorError(
            f"the detector {name} gave a box that is not four finite numbers and a score: "
            f"{tuple(box.xyxy)}, {box.score}"
        )
    if not 0 <= box.score <= 1:
        raise DetectorError(f"the detector {name} gave the score {box.score:g}; it is 0 to 1")
    if box.mask is not None and (box.mask.ndim != 2 or not np.isfinite(box.mask).all()):
        raise DetectorError(f"the detector {name} gave a mask that is not finite logits [h, w]")
    height, width = size_hw
    x0, y0, x1, y1 = box.xyxy
    inside = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return None
    return replace(box, xyxy=inside)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names for a sentence, shortened."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
