"""One tracked object: mask, motion, score and state."""

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
from maskstream.trackers.sightings import UNSEEN, Sightings
from maskstream.trackers.state import TrackState

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]


LOGIT_LIMIT = 8.0  # magnitude at which logits are clipped


def box_of(mask: BoolMap) -> Vector | None:
    """Tight box xyxy (right and bottom exclusive) of a mask [H, W]; None if it is empty."""
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

    id: 0 until confirmed. prompted: given by a person; never dropped automatically. hits, misses:
    consecutive keyframes that found it, or did not. seen_s: when it was last found. recognized_s:
    when the memory last recognized it. traveled: motion since the last keyframe, in sides of a
    square of its area. rigid_motion: similarity [2, 3] from the previous frame; None if unknown or
    not rigid. points: (x, y) [N, 2] in it that are tracked from frame to frame. need: for a
    keyframe (`Need`). sightings: what a detector has said of it.
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
    recognized_s: float = -math.inf
    traveled: float = 0.0
    rigid_motion: Vector | None = None
    points: FloatMap = field(default_factory=lambda: NO_POINTS)
    need: Need = field(default_factory=Need)
    sightings: Sightings = UNSEEN

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
        """Whether its mask is propagated from frame to frame."""
        return self.visible or self.state == TrackState.TENTATIVE

    def propagate(self, propagated: Propagated, flow: Flow, dt_s: float) -> None:
        """Take the mask propagated to the next frame and update the box."""
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
            occluded=propagated.occluded,
            border=border,
            shift=float(np.hypot(*(propagated.shift - self._drift(flow)))) / side,
        )
        self.motion.update(box, self._velocity(propagated.shift, flow, dt_s))

    def _velocity(self, shift: Vector, flow: Flow, dt_s: float) -> Vector | None:
        """The object's velocity (x, y) relative to the camera's motion, pixels per second."""
        if dt_s <= 0:
            return None
        return np.asarray((shift - self._drift(flow)) / dt_s, np.float64)

    def _drift(self, flow: Flow) -> Vector:
        """Camera motion at the object's expected center, (x, y) pixels."""
        center = self.motion.value[:2]
        if flow.camera is None:
            return np.zeros(2)
        return np.asarray(flow.camera.moved(center) - center, np.float64)

    def update(self, detection: Detection, agreement: float, now_s: float) -> None:
        """Take a matched detection.

        agreement: IoU of the detection with the propagated mask; a factor of the confidence.
        """
        self.update_mask(detection.logits)
        self._found(detection.score * agreement, now_s)

    def update_mask(self, logits: FloatMap) -> None:
        """Take new logits [H, W] of a mask that continues the propagated one."""
        self.logits = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
        self.points = NO_POINTS

    def replace(self, logits: FloatMap, score: float, now_s: float) -> None:
        """Take a new mask unrelated to the old one (a prompt, or the object found again)."""
        self.update_mask(logits)
        self.rigid_motion = None
        self.need = Need()
        box = box_of(self.mask)
        if box is not None:
            self.motion = KalmanBox.start(box)
        self._found(score, now_s)

    def correct(self, logits: FloatMap, score: float, now_s: float) -> None:
        """Take another mask of the object, which goes on moving as it did."""
        self.update_mask(logits)
        self.rigid_motion = None
        self.need = Need()
        box = box_of(self.mask)
        if box is not None:
            self.motion.update(box)
        self._found(score, now_s)

    def _found(self, score: float, now_s: float) -> None:
        self.score = score
        self.hits += 1
        self.misses = 0
        self.seen_s = now_s

    def looked_at(self, before: BoolMap) -> None:
        """Record an update by a keyframe; `before` [H, W] is the propagated mask.

        A new mask (a prompt, found again) counts as a correction, so the next keyframe comes soon.
        """
        correction = 1 - mask_iou(before, self.mask) if self.alive else 0.0
        self.need = self.need.looked_at(correction)

    def mark_missed(self) -> None:
        """Record a keyframe that did not find the object."""
        self.hits = 0
        self.misses += 1
        self.score *= 0.8


def _border_moved(motion: Vector | None) -> float:
    """Border motion by rotation and scaling, in sides of a square of the object's area."""
    return 0.0 if motion is None else math.hypot(motion[0, 0] - 1, motion[1, 0]) / 2
