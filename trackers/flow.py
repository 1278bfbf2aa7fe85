"""Optical flow at low resolution, and masks carried along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.trackers.motion import CameraMotion, Vector

GrayImage = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]
Window = tuple[slice, slice]

_AROUND = np.ones((3, 3), np.uint8)
_NO_MAP: Any = None  # remap takes one map for both, which OpenCV's stubs do not know

SMALLEST_SIDE = 16  # pixels; DIS needs room for its patches, below that nothing moves
OCCLUDED_LOGIT = -0.5  # outside, but a decoded mask that says otherwise is soon believed
_SLACK_PX, _SLACK_SHARE = 3.0, 0.3  # contradiction allowed, pixels and share of the motion
_CAMERA_STEP_PX = 8  # of the grid on which the camera's motion is estimated
_CAMERA_SLACK_PX = 1.0  # from it, of points that still count as background
_BACKGROUND_SHARE = 0.5  # of these points, below which nothing is said of the camera
_MARGIN_PX = 4  # around an object's box; logits farther away say no more than that they are outside
_POINTS = 40  # in an object, about so many, are followed to see how it moves as a whole
_ENOUGH_POINTS, _FEWEST_POINTS = 24, 6  # to go on with, and to say anything from
_PATCH_PX, _LEVELS = 9, 2  # compared around each point; halvings of the picture
_TOGETHER_PX, _TOGETHER_SHARE = 1.0, 0.4  # of points that move as one: slack, and how many do
_FOREIGN_GRAY, _CLEARLY_GRAY = 12, 4  # difference from what an object looked like just before
_LEAST_CONTRAST = 5.0  # gray levels; keeps noise in a dark frame from looking like a cut


NO_POINTS: FloatMap = np.empty((0, 2), np.float32)


class Propagated(NamedTuple):
    """An object a frame later: logits float32 [H, W], and how far it moved, (x, y) pixels.

    motion: the similarity, float64 [2, 3], by which it moved as a whole; None if it did not.
    points: (x, y) [N, 2] in it that moved so, to be followed further. loose: share of the points
    that were followed which did not. hidden: share of the mask where the flow's two directions
    contradict each other.
    """

    logits: FloatMap
    shift: Vector
    motion: Vector | None = None
    points: FloatMap = NO_POINTS
    loose: float = 1.0
    hidden: float = 0.0


class FlowEstimator:
    """Dense inverse search (Kroeger et al., ECCV 2016; OpenCV's DIS) between successive frames."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._previous: GrayImage | None = None

    def step(self, gray: GrayImage) -> Flow | None:
        """Flow from the frame before to this one (luma uint8 [H, W]); None on the first."""
        previous, self._previous = self._previous, gray
        if previous is None:
            return None
        back = np.zeros((*gray.shape, 2), np.float32)
        forth = np.zeros_like(back)
        if min(gray.shape) >= SMALLEST_SIDE:
            self._dis.calc(gray, previous, back)  # to where each pixel was
            self._dis.calc(previous, gray, forth)
        return Flow(back, forth, previous, gray)


class Flow:
    """Motion from one frame (`previous`) to the next (`present`), luma uint8 [H, W].

    back: float32 [H, W, 2], from each pixel of the present frame to where it was before; forth:
    from each pixel of the frame before to where it is now. Where they contradict each other
    (forward-backward check) the pixel was hidden before, and nothing is carried to it.
    """

    def __init__(
        self, back: FloatMap, forth: FloatMap, previous: GrayImage, present: GrayImage
    ) -> None:
        self._back, self._forth = back, forth
        self._previous, self._present = previous, present

    @cached_property
    def speed(self) -> FloatMap:
        """Pixels that each pixel moved, float32 [H, W]."""
        return np.asarray(cv2.magnitude(self._back[..., 0], self._back[..., 1]), np.float32)

    @cached_property
    def residual(self) -> float:
        """How much of the present frame the frame before cannot explain, even moved along the flow.

        Mean absolute difference by the present contrast. On real clips it stays below 0.3 within a
        shot and exceeds 0.8 at a cut.
        """
        contrast = float(cv2.meanStdDev(self._present)[1][0, 0])
        return float(cv2.mean(self._difference)[0] / (contrast + _LEAST_CONTRAST))

    @cached_property
    def _origins(self) -> FloatMap:
        """Where each pixel was, (x, y) float32 [H, W, 2]."""
        height, width = self._present.shape
        origins = self._back.copy()
        origins[..., 0] += np.arange(width, dtype=np.float32)
        origins[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return origins

    @cached_property
    def hidden(self) -> GrayImage:
        """1 where both directions contradict each other, else 0, uint8 [H, W]."""
        slack = _SLACK_PX + _SLACK_SHARE * _manhattan(self._back)
        contradiction = _manhattan(self._back + self._remap(self._forth))
        return np.asarray(contradiction > slack, np.bool_).view(np.uint8)

    @cached_property
    def _difference(self) -> GrayImage:
        """Of the present frame and the frame before moved along the flow, gray levels [H, W]."""
        return _blurred_difference(self._remap(self._previous), self._present)

    def propagate(
        self, masks: Sequence[FloatMap], points: Sequence[FloatMap] | None = None
    ) -> list[Propagated]:
        """Carry objects, given by their logits [H, W] on the frame before.

        An object whose points move together is moved, turned and scaled as a whole; what looks
        foreign there and moves otherwise is something in front of it. Others are carried along the
        dense flow, which slow and flat surroundings hold back at an object's border.
        points: of each object, where it was carried to the frame before (`Propagated.points`).
        """
        if not masks:
            return []
        known = [NO_POINTS] * len(masks) if points is None else points
        chosen = [
            followed if len(followed) >= _ENOUGH_POINTS else _inner_points(logits > 0)
            for logits, followed in zip(masks, known, strict=True)
        ]
        seen = self._follow(np.concatenate(chosen))
        moved = np.split(seen, np.cumsum([len(points) for points in chosen])[:-1])
        propagated = []
        for logits, before, now in zip(masks, chosen, moved, strict=True):
            motion, together = _common_motion(before, now)
            one = self.propagate_rigid(logits, motion)
            loose = 1 - len(together) / max(1, len(before))
            points_now = _inside(now[together], one.logits)
            hidden = cv2.mean(self.hidden, (one.logits > 0).view(np.uint8))[0]
            propagated.append(one._replace(points=points_now, loose=loose, hidden=hidden))
        return propagated

    def _follow(self, points: FloatMap) -> FloatMap:
        """Where points (x, y) [N, 2] of the frame before are now, NaN where they are not found.

        Pyramidal Lucas-Kanade (Bouguet).
        """
        if not len(points) or min(self._present.shape) < SMALLEST_SIDE:
            return np.full_like(points, np.nan)
        now, found, _ = cv2.calcOpticalFlowPyrLK(
            self._previous,
            self._present,
            points[:, None],
            points[:, None].copy(),
            winSize=(_PATCH_PX, _PATCH_PX),
            maxLevel=_LEVELS,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 0.03),
        )
        return np.where(found > 0, now[:, 0], np.nan).astype(np.float32)

    def propagate_rigid(self, logits: FloatMap, motion: Vector | None) -> Propagated:
        """As `propagate`, of one object of known rigid motion [2, 3]; None: it has none."""
        if motion is None:
            dense = self.warp(logits)
            return Propagated(dense, self._shift_inside(dense > 0))
        propagated = np.minimum(logits, OCCLUDED_LOGIT)
        box = _box(logits > 0)
        window = _window(box, motion, logits.shape)
        part = _warp_rigid(logits, motion, window)
        foreign = self._foreign(motion, window) & (part > 0)
        if foreign.any():
            foreign &= self.warp(logits)[window] <= 0
            part[foreign] = OCCLUDED_LOGIT
        propagated[window] = part
        center = np.array([box[1].start + box[1].stop, box[0].start + box[0].stop]) / 2
        return Propagated(propagated, motion[:, :2] @ center + motion[:, 2] - center, motion)

    def _foreign(self, matrix: Vector, window: Window) -> npt.NDArray[np.bool_]:
        """Where an object that moved so would look unlike what is there, and the flow knows better.

        Bool [h, w] of a window.
        """
        before = _warp_rigid(self._previous, matrix, window)
        difference = _blurred_difference(before, self._present[window])
        clearly = cv2.subtract(difference, self._difference[window]) > _CLEARLY_GRAY
        return np.asarray((difference > _FOREIGN_GRAY) & clearly, np.bool_)

    def reverse(self) -> Flow:
        """The motion from this frame to the one before it."""
        return Flow(self._forth, self._back, self._present, self._previous)

    def warp(self, logits: FloatMap) -> FloatMap:
        """Carry logits [H, W] of the frame before.

        What enters the picture continues what is at the border; what was hidden is outside. Only
        as far as anything moved is looked up; beyond, everything stays outside.
        """
        propagated = np.minimum(logits, OCCLUDED_LOGIT)
        x, y, width, height = cv2.boundingRect((logits > 0).view(np.uint8))
        if width == 0:
            return propagated
        margin = math.ceil(float(self.speed.max())) + _MARGIN_PX
        window = (
            slice(max(0, y - margin), y + height + margin),
            slice(max(0, x - margin), x + width + margin),
        )
        moved = self._remap(logits, window)
        np.minimum(moved, OCCLUDED_LOGIT, out=moved, where=self.hidden[window] > 0)
        propagated[window] = moved
        return propagated

    def _shift_inside(self, mask: npt.NDArray[np.bool_]) -> Vector:
        """Mean motion (x, y) of the pixels of a mask bool [H, W] of this frame."""
        return -np.array(cv2.mean(self._back, mask.view(np.uint8))[:2])

    def object_speed(self) -> FloatMap:
        """Pixels that each pixel moved beside what the camera did, float32 [H, W]."""
        if self.camera is None:
            return self.speed
        height, width = self.speed.shape
        turn = cv2.invertAffineTransform(self.camera.matrix)
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        own_x = self._back[..., 0] - ((turn[0, 0] - 1) * x + turn[0, 1] * y + turn[0, 2])
        own_y = self._back[..., 1] - (turn[1, 0] * x + (turn[1, 1] - 1) * y + turn[1, 2])
        return np.asarray(np.hypot(own_x, own_y), np.float32)

    @cached_property
    def camera(self) -> CameraMotion | None:
        """What most of the picture did together; None if most of it does not move as one."""
        height, width = self._present.shape
        if min(height, width) < SMALLEST_SIDE:
            return None
        first, step = _CAMERA_STEP_PX // 2, _CAMERA_STEP_PX
        back = self._back[first::step, first::step].reshape(-1, 2)
        x, y = np.meshgrid(np.arange(first, width, step), np.arange(first, height, step))
        now = np.stack([x.reshape(-1), y.reshape(-1)], 1).astype(np.float32)
        matrix, background = cv2.estimateAffinePartial2D(
            now + back, now, ransacReprojThreshold=_CAMERA_SLACK_PX, maxIters=100
        )
        if matrix is None or background.mean() < _BACKGROUND_SHARE:
            return None
        return CameraMotion(np.asarray(matrix, np.float64))

    def _remap(self, image: Any, window: Window = (slice(None), slice(None))) -> Any:
        """A picture of the frame before as it is now, in a window of it."""
        origins = self._origins[window]
        return cv2.remap(image, origins, _NO_MAP, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


def _box(mask: npt.NDArray[np.bool_]) -> Window:
    """Rows and columns of a mask [H, W]; empty if it is."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def _window(box: Window, matrix: Vector, size_hw: tuple[int, ...]) -> Window:
    """The part of a picture where a box lies after a motion, with some room."""
    rows, columns = box
    corners = [(x, y) for x in (columns.start, columns.stop) for y in (rows.start, rows.stop)]
    ends = []
    for (along_x, along_y, shift), size in zip(matrix.tolist(), size_hw[::-1], strict=True):
        places = [along_x * x + along_y * y + shift for x, y in corners]
        first = min(max(0, math.floor(min(places)) - _MARGIN_PX), size - 1)
        ends.append(slice(first, max(first + 1, min(size, math.ceil(max(places)) + _MARGIN_PX))))
    return ends[1], ends[0]


def _inner_points(mask: npt.NDArray[np.bool_]) -> FloatMap:
    """Points (x, y) [N, 2] evenly spread in a mask [H, W], off its border if it is not thin."""
    rows, columns = box = _box(mask)
    part = mask[box]
    padded = np.zeros((part.shape[0] + 2, part.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = part
    inner = cv2.erode(padded, _AROUND)[1:-1, 1:-1]
    found = np.flatnonzero(inner)
    if len(found) < _FEWEST_POINTS:
        found = np.flatnonzero(part)
    y, x = np.divmod(found[:: max(1, len(found) // _POINTS)], max(1, part.shape[1]))
    return np.stack([x + columns.start, y + rows.start], 1).astype(np.float32)


def _common_motion(points: FloatMap, moved: FloatMap) -> tuple[Vector | None, npt.NDArray[np.intp]]:
    """The similarity, float64 [2, 3], by which most points moved; None if they did not together.

    points, moved: (x, y) [N, 2] before and after, NaN where a point was not found again. Also gives
    which of them moved so.
    """
    found = np.flatnonzero(moved[:, 0] == moved[:, 0])  # not NaN
    none = found[:0]
    if len(found) < _FEWEST_POINTS:
        return None, none
    matrix, together = cv2.estimateAffinePartial2D(
        points[found], moved[found], ransacReprojThreshold=_TOGETHER_PX, maxIters=100
    )
    if matrix is None or np.count_nonzero(together) < _TOGETHER_SHARE * len(found):
        return None, none
    return np.asarray(matrix, np.float64), found[together[:, 0] > 0]


def _inside(points: FloatMap, logits: FloatMap) -> FloatMap:
    """Those of the points (x, y) [N, 2] that lie in an object."""
    height, width = logits.shape
    x, y = (points + 0.5).astype(np.intp).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    inside[inside] = logits[y[inside], x[inside]] > 0
    return np.asarray(points[inside], np.float32)


def _warp_rigid(image: Any, matrix: Vector, window: Window) -> Any:
    """A window of a picture [H, W] after a motion; what enters continues what is at the border."""
    rows, columns = window
    placed = matrix.copy()
    placed[:, 2] -= columns.start, rows.start
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return cv2.warpAffine(image, placed, size, borderMode=cv2.BORDER_REPLICATE)


def _blurred_difference(a: GrayImage, b: GrayImage) -> GrayImage:
    """Absolute difference of two pictures uint8 [H, W], evened out a little."""
    return np.asarray(cv2.blur(cv2.absdiff(a, b), (3, 3)), np.uint8)


def _manhattan(vectors: FloatMap) -> FloatMap:
    """|x| + |y| of vectors [H, W, 2]."""
    lengths = np.abs(vectors)
    return np.asarray(lengths[..., 0] + lengths[..., 1], np.float32)
