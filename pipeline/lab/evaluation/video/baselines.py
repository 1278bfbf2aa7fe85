"""Baselines for video object segmentation; they do not use the project's tracker.

`still` repeats the prompted mask. `flow` propagates it by optical flow without any network. `box`
prompts the mask decoder on every keyframe with the box that flow and a Kalman filter propagated.
`affinity` only compares untrained encoder features on every keyframe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.evaluation.video.appearance import CellFeatures
from maskstream.pipeline.lab.evaluation.video.recognizer import Recognizer
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import PromptBatch
from maskstream.pipeline.tracking.steps import mask_logits, working_size
from maskstream.pipeline.types import Frame, LabelMap, SizeHW
from maskstream.trackers.flow import FlowEstimator
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.track import LOGIT_LIMIT, box_of

BoolMap = npt.NDArray[np.bool_]
_FRAME_S = 1 / 25  # between frames without timestamps


class Baseline(Protocol):
    """A method that is prompted with masks and tracks them through one clip."""

    def step(self, frame: Frame) -> LabelMap:
        """Label map uint16 [H, W] at the frame's size; called on every frame, in order."""

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Add objects: masks bool [H, W] by id, on the frame of the last `step`."""


MakeBaseline = Callable[[PipelineConfig, Path, SizeHW], Baseline]
"""Creates a baseline from the configuration, the model's path and the frame size."""


class StaticMasks:
    """Repeats the prompted masks."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._labels = np.zeros(frame_hw, np.uint16)

    def step(self, frame: Frame) -> LabelMap:
        """The masks prompted so far."""
        return self._labels.copy()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Paint the masks over earlier ones."""
        for number, mask in masks.items():
            self._labels[mask] = number


class FlowOnly:
    """Propagates masks by dense flow at the working resolution."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self.frame_hw = frame_hw
        self.working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        self.logits: dict[int, FloatMap] = {}
        self._flow = FlowEstimator()

    def step(self, frame: Frame) -> LabelMap:
        """Propagate every mask to the frame."""
        self.advance(frame)
        return self.paint()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Scale the masks to the working resolution."""
        for number, mask in masks.items():
            self.logits[number] = mask_logits(mask, self.working_hw)

    def advance(self, frame: Frame) -> None:
        """Warp the masks to this frame by flow."""
        flow = self._flow.step(frame.gray(self.working_hw))
        if flow is not None:
            self.logits = {number: flow.warp(logits) for number, logits in self.logits.items()}

    def paint(self) -> LabelMap:
        """Label map of the masks; where they overlap, the most confident one is on top."""
        labels = np.zeros(self.frame_hw, np.uint16)
        strongest = np.zeros(self.frame_hw, np.float32)
        for number, logits in self.logits.items():
            full = cv2.resize(logits, self.frame_hw[::-1], interpolation=cv2.INTER_LINEAR)
            labels[full > strongest] = number
            np.maximum(strongest, full, out=strongest)
        return labels


class BoxOnly:
    """On every keyframe, replaces a mask by what the mask decoder gives for its propagated box."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._masks = FlowOnly(config, model, frame_hw)
        self._segmenter = open_segmenter(config, model, frame_hw)
        self._interval = config.keyframes.interval
        self._motion: dict[int, KalmanBox] = {}
        self._pts_s: float | None = None
        self._count = 0

    def step(self, frame: Frame) -> LabelMap:
        """Propagate masks and boxes; on a keyframe decode the boxes."""
        self._masks.advance(frame)
        dt_s = self._seconds_since_previous(frame)
        for number, motion in self._motion.items():
            motion.predict(dt_s)
            self._measure(number)
        if self._motion and self._count % self._interval == 0:
            self._decode(frame)
        self._count += 1
        return self._masks.paint()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Start at the boxes of the masks; keyframes are counted from this frame."""
        self._masks.start(frame, masks)
        for number in masks:
            box = box_of(self._masks.logits[number] > 0)
            self._motion[number] = KalmanBox.start(np.zeros(4) if box is None else box)
        self._count = 1

    def _decode(self, frame: Frame) -> None:
        to_frame = np.tile(np.divide(self._masks.frame_hw, self._masks.working_hw)[::-1], 2)
        boxes = np.array([motion.box_xyxy * to_frame for motion in self._motion.values()])
        features = self._segmenter.encode(frame)
        decoded = self._segmenter.decode(features, PromptBatch.boxes(boxes))
        for number, answer in zip(self._motion, decoded.masks[:, 0], strict=True):
            logits = self._segmenter.geometry.to_size(answer, self._masks.working_hw)
            self._masks.logits[number] = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
            self._measure(number)

    def _measure(self, number: int) -> None:
        box = box_of(self._masks.logits[number] > 0)
        if box is not None:
            self._motion[number].update(box)

    def _seconds_since_previous(self, frame: Frame) -> float:
        """Seconds since the previous frame."""
        before, self._pts_s = self._pts_s, frame.pts_s
        if before is None or self._pts_s is None or self._pts_s <= before:
            return _FRAME_S
        return self._pts_s - before


class Affinity:
    """Compares untrained features on every keyframe; without decoder, motion or flow."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._masks = FlowOnly(config, model, frame_hw)
        self._segmenter = open_segmenter(config, model, frame_hw)
        self._recognizer = Recognizer(self._segmenter.geometry, self._masks.working_hw)
        self._interval = config.keyframes.interval
        self._count = 0
        self._cells: CellFeatures | None = None

    def step(self, frame: Frame) -> LabelMap:
        """On a keyframe, search the whole frame for every object."""
        self._cells = None
        if self._masks.logits and self._count % self._interval == 0:
            cells = self._encode(frame)
            for number in self._masks.logits:
                readout = self._recognizer.read(number, cells)
                self._masks.logits[number] = self._recognizer.logits(readout)
                self._recognizer.add_recent(number, cells, readout, self._now_s(frame))
        self._count += 1
        return self._masks.paint()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Add the objects as references; keyframes are counted from this frame."""
        self._masks.start(frame, masks)
        cells = self._encode(frame)
        for number in masks:
            self._recognizer.add_reference(number, cells, self._masks.logits[number])
        self._count = 1

    def _now_s(self, frame: Frame) -> float:
        return self._count * _FRAME_S if frame.pts_s is None else frame.pts_s

    def _encode(self, frame: Frame) -> CellFeatures:
        if self._cells is None:
            self._cells = self._recognizer.cells(self._segmenter.encode(frame))
        return self._cells


BASELINES: Mapping[str, MakeBaseline] = {
    "still": StaticMasks,
    "flow": FlowOnly,
    "box": BoxOnly,
    "affinity": Affinity,
}
"""Baselines by name, in display order."""
