"""One tracked object: its mask, its motion and the stage of its life."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.trackers.flow import NO_POINTS, Flow, Propagated
from maskstream.trackers.iou import mask_iou
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.need import Need
from maskstream.trackers.state import TrackState

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]


LOGIT_LIMIT = 8.0  # beyond it nothing gets surer


def box_of(mask: BoolMap) -> Vector | None:
    """Tight box xyxy (right and bottom exclusive) of a mask [H, W], or None when it is empty."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return None if w == 0 else np.array([x, y, x + w, y + h], np.float64)


@dataclass(frozen=True, slots=True)
class Detection:
    """A mask found on a keyframe: logits float32 [H, W] at the working resolution, score 0..1."""

    logits: FloatMap
    score: float


@dataclass(slots=True)
class Track:
    """Mutable state of one object; coordinates are pixels of the working resolution.

    id: 0 until confirmed. prompted: a person asked for it; it is never given up.
    hits, misses: keyframes in a row that found it, or did not. seen_s: when it was last found.
    affinity: how alike it usually is to what is remembered of it (`MemoryReadout.affinity`); 0:
    unknown. recognized_s: when the appearance memory last found it. traveled: how far it moved
    since the last keyframe, in sides of a square of its area. rigid_motion: the similarity [2, 3]
    by which it came from the frame before; None if it did not move as a whole, or that is not
    known. points: (x, y) [N, 2] in it that are followed from frame to frame. need: to be looked at
    by a keyframe.
    """

    id: int
    logits: FloatMap
    motion: KalmanBox
    score: float
    state: TrackState
    prompted: bool
    seen_s: float
    hits: int = 1
    misses: int = 0
    affinity: float = 0.0
    recognized_s: float = -math.inf
    traveled: float = 0.0
    rigid_motion: Vector | None = None
    points: FloatMap = field(default_factory=lambda: NO_POINTS)
    need: Need = field(default_factory=Need)

    @property
    def mask(self) -> BoolMap:
        """Mask bool [H, W] at the working resolution."""
        return self.logits > 0

    @property
    def visible(self) -> bool:
        """Whether its mask may be shown."""
        return self.state in (TrackState.TRACKED, TrackState.REENTERED)

    @property
    def alive(self) -> bool:
        """Whether its mask is carried on from frame to frame."""
        return self.visible or self.state == TrackState.TENTATIVE

    def propagate(self, propagated: Propagated, flow: Flow, dt_s: float) -> None:
        """Take the mask as it was carried to the next frame and move the box along."""
        self.logits, self.rigid_motion, self.points = (
            propagated.logits,
            propagated.motion,
            propagated.points,
        )
        self.motion.predict(dt_s, flow.camera)
        mask = self.mask
        box = box_of(mask)
        if box is None:
            return
        area = cv2.countNonZero(mask.view(np.uint8))
        side, border = math.sqrt(area), _border_moved(self.rigid_motion)
        self.traveled += float(np.hypot(*propagated.shift)) / side + border
        self.need = self.need.propagated(
            loose=propagated.loose,
            hidden=propagated.hidden,
            border=border,
            shift=float(np.hypot(*(propagated.shift - self._drift(flow)))) / side,
        )
        self.motion.update(box, self._velocity(propagated.shift, flow, dt_s))

    def _velocity(self, shift: Vector, flow: Flow, dt_s: float) -> Vector | None:
        """The object's own velocity (x, y), pixels a second, beside what the camera did."""
        if dt_s <= 0:
            return None
        return np.asarray((shift - self._drift(flow)) / dt_s, np.float64)

    def _drift(self, flow: Flow) -> Vector:
        """How far the camera moved what is where the object is expected, (x, y) pixels."""
        center = self.motion.value[:2]
        if flow.camera is None:
            return np.zeros(2)
        return np.asarray(flow.camera.moved(center) - center, np.float64)

    def update(self, detection: Detection, agreement: float, now_s: float) -> None:
        """Take a detection that agrees.

        agreement: IoU of the detection with the carried mask; it is part of the confidence.
        """
        self.update_mask(detection.logits)
        self._found(detection.score * agreement, now_s)

    def update_mask(self, logits: FloatMap) -> None:
        """Take logits [H, W] of what is seen where the mask was carried to."""
        self.logits = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
        self.points = NO_POINTS

    def replace(self, logits: FloatMap, score: float, now_s: float) -> None:
        """Take a new mask whatever the old one was (a person's prompt, or found again)."""
        self.update_mask(logits)
        self.rigid_motion = None
        self.need = Need()
        box = box_of(self.mask)
        if box is not None:
            self.motion = KalmanBox.start(box)
        self._found(score, now_s)

    def _found(self, score: float, now_s: float) -> None:
        self.score = score
        self.hits += 1
        self.misses = 0
        self.seen_s = now_s

    def looked_at(self, before: BoolMap) -> None:
        """Note that a keyframe has looked at the object, whose carried mask was `before` [H, W].

        A mask that is new (a prompt, found again) counts as corrected, and is soon looked at again.
        """
        correction = 1 - mask_iou(before, self.mask) if self.alive else 0.0
        self.need = self.need.looked_at(correction)

    def mark_missed(self) -> None:
        """Note a keyframe that did not find the object."""
        self.hits = 0
        self.misses += 1
        self.score *= 0.8


def _border_moved(motion: Vector | None) -> float:
    """How far turning and growing move an object's border, in sides of a square of its size."""
    return 0.0 if motion is None else math.hypot(motion[0, 0] - 1, motion[1, 0]) / 2
