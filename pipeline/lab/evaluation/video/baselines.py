"""What a tracker must beat, with nothing of the tracker in it.

`still` holds the given mask, `flow` carries it along the flow and never asks the network, `box`
asks the network on every keyframe for what is in the box that the flow and a Kalman filter carried,
`affinity` compares untrained encoder features on every keyframe and does nothing else.
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
_STEP_S = 1 / 25  # between frames without timestamps


class Baseline(Protocol):
    """A method that is given objects and follows them through one clip."""

    def step(self, frame: Frame) -> LabelMap:
        """Label map uint16 [H, W] at the frame's size; called on every frame, in order."""

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Take objects: masks bool [H, W] by id, on the frame that was stepped to last."""


MakeBaseline = Callable[[PipelineConfig, Path, SizeHW], Baseline]
"""From the configuration, where its model lies and the frames' size."""


class StaticMasks:
    """The masks as they were given."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._labels = np.zeros(frame_hw, np.uint16)

    def step(self, frame: Frame) -> LabelMap:
        """What was given so far."""
        return self._labels.copy()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Paint them over what is there."""
        for number, mask in masks.items():
            self._labels[mask] = number


class FlowOnly:
    """The masks carried along dense flow, at the configuration's size of it."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self.frame_hw = frame_hw
        self.working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        self.logits: dict[int, FloatMap] = {}
        self._flow = FlowEstimator()

    def step(self, frame: Frame) -> LabelMap:
        """Carry every mask to the frame."""
        self.advance(frame)
        return self.paint()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Shrink them to the grid of the flow."""
        for number, mask in masks.items():
            self.logits[number] = mask_logits(mask, self.working_hw)

    def advance(self, frame: Frame) -> None:
        """Move the masks along the flow to this frame."""
        flow = self._flow.step(frame.gray(self.working_hw))
        if flow is not None:
            self.logits = {number: flow.warp(logits) for number, logits in self.logits.items()}

    def paint(self) -> LabelMap:
        """Label map of the masks; where they overlap the surest one wins."""
        labels = np.zeros(self.frame_hw, np.uint16)
        strongest = np.zeros(self.frame_hw, np.float32)
        for number, logits in self.logits.items():
            full = cv2.resize(logits, self.frame_hw[::-1], interpolation=cv2.INTER_LINEAR)
            labels[full > strongest] = number
            np.maximum(strongest, full, out=strongest)
        return labels


class BoxOnly:
    """Every keyframe the network's answer to the carried box alone replaces the mask."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._masks = FlowOnly(config, model, frame_hw)
        self._segmenter = open_segmenter(config, model, frame_hw)
        self._interval = config.keyframes.interval
        self._motion: dict[int, KalmanBox] = {}
        self._pts_s: float | None = None
        self._count = 0

    def step(self, frame: Frame) -> LabelMap:
        """Carry masks and boxes; on a keyframe decode the boxes."""
        self._masks.advance(frame)
        dt_s = self._clock(frame)
        for number, motion in self._motion.items():
            motion.predict(dt_s)
            self._measure(number)
        if self._motion and self._count % self._interval == 0:
            self._decode(frame)
        self._count += 1
        return self._masks.paint()

    def start(self, frame: Frame, masks: Mapping[int, BoolMap]) -> None:
        """Begin at the boxes of the masks; keyframes are counted from here."""
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

    def _clock(self, frame: Frame) -> float:
        """Seconds since the frame before."""
        before, self._pts_s = self._pts_s, frame.pts_s
        if before is None or self._pts_s is None or self._pts_s <= before:
            return _STEP_S
        return self._pts_s - before


class Affinity:
    """Every keyframe untrained features are compared; no decoder, no motion, no flow."""

    def __init__(self, config: PipelineConfig, model: Path, frame_hw: SizeHW) -> None:
        self._masks = FlowOnly(config, model, frame_hw)
        self._segmenter = open_segmenter(config, model, frame_hw)
        self._recognizer = Recognizer(self._segmenter.geometry, self._masks.working_hw)
        self._interval = config.keyframes.interval
        self._count = 0
        self._cells: CellFeatures | None = None

    def step(self, frame: Frame) -> LabelMap:
        """On a keyframe read every object; it is looked for everywhere."""
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
        """Remember the objects; keyframes are counted from here."""
        self._masks.start(frame, masks)
        cells = self._encode(frame)
        for number in masks:
            self._recognizer.add_reference(number, cells, self._masks.logits[number])
        self._count = 1

    def _now_s(self, frame: Frame) -> float:
        return self._count * _STEP_S if frame.pts_s is None else frame.pts_s

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
"""By name, in the order in which they are shown."""
