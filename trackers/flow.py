"""Dense optical flow at the working resolution, and masks propagated by it."""

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

_KERNEL_3X3 = np.ones((3, 3), np.uint8)
_NO_MAP: Any = None  # remap takes one map for both, which OpenCV's stubs do not know

SMALLEST_SIDE = 16  # pixels; DIS needs space for its patches; smaller images have zero flow
OCCLUDED_LOGIT = -0.5  # just outside, so that a decoded mask easily outweighs it
_CHECK_PX, _CHECK_SHARE = 3.0, 0.3  # forward-backward tolerance: pixels, share of the motion
_CAMERA_STEP_PX = 8  # of the grid on which the camera's motion is estimated
_CAMERA_INLIER_PX = 1.0  # deviation from it of points that still count as background
_BACKGROUND_SHARE = 0.5  # share of background points below which there is no camera motion
_MARGIN_PX = 4  # around an object's box; farther logits only mean "outside"
_POINTS = 40  # approximate number of points tracked in an object
_KEEP_POINTS, _LEAST_POINTS = 24, 6  # needed to keep tracking the same ones, and for an estimate
_PATCH_PX, _LEVELS = 9, 2  # Lucas-Kanade window, pyramid levels
_INLIER_PX, _INLIER_SHARE = 1.0, 0.4  # RANSAC threshold and least share of inliers
_FOREIGN_GRAY, _CLEAR_GRAY = 12, 4  # gray levels; difference from the warped object
_LEAST_CONTRAST = 5.0  # gray levels; noise in a dark frame must not look like a cut


NO_POINTS: FloatMap = np.empty((0, 2), np.float32)


class Propagated(NamedTuple):
    """An object propagated by one frame: logits float32 [H, W] and shift (x, y), pixels.

    motion: similarity, float64 [2, 3], by which it moved as a whole; None if it did not. points:
    inlier points (x, y) [N, 2], to be tracked further. loose: share of outliers among the tracked
    points. occluded: share of the mask that fails the forward-backward check.
    """

    logits: FloatMap
    shift: Vector
    motion: Vector | None = None
    points: FloatMap = NO_POINTS
    loose: float = 1.0
    occluded: float = 0.0


class FlowEstimator:
    """Dense inverse search (Kroeger et al., ECCV 2016; OpenCV's DIS) between successive frames."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._previous: GrayImage | None = None

    def step(self, gray: GrayImage) -> Flow | None:
        """Flow from the previous frame to this one (luma uint8 [H, W]); None on the first."""
        previous, self._previous = self._previous, gray
        return None if previous is None else self.between(previous, gray)

    def between(self, previous: GrayImage, current: GrayImage) -> Flow:
        """Flow between two frames, luma uint8 [H, W]."""
        back = np.zeros((*current.shape, 2), np.float32)
        forth = np.zeros_like(back)
        if min(current.shape) >= SMALLEST_SIDE:
            self._dis.calc(current, previous, back)  # to each pixel's previous position
            self._dis.calc(previous, current, forth)
        return Flow(back, forth, previous, current)


class Flow:
    """Dense flow between two successive frames, luma uint8 [H, W].

    back: float32 [H, W, 2], from each pixel of the current frame to its previous position; forth:
    from each pixel of the previous frame to its current position. Where they contradict each other
    (forward-backward check) the pixel was occluded before, and no mask is propagated to it.
    """

    def __init__(
        self, back: FloatMap, forth: FloatMap, previous: GrayImage, current: GrayImage
    ) -> None:
        self._back, self._forth = back, forth
        self._previous, self._current = previous, current

    @cached_property
    def speed(self) -> FloatMap:
        """Flow magnitude of each pixel, float32 [H, W], pixels."""
        return np.asarray(cv2.magnitude(self._back[..., 0], self._back[..., 1]), np.float32)

    @cached_property
    def residual(self) -> float:
        """Difference of the current frame and the warped previous one, relative to contrast.

        Mean absolute difference divided by the current frame's contrast. On real clips it stays
        below 0.3 within a shot and exceeds 0.8 at a cut.
        """
        return _relative(self._difference, self._current)

    @cached_property
    def _origins(self) -> FloatMap:
        """Previous position (x, y) of each pixel, float32 [H, W, 2]."""
        height, width = self._current.shape
        origins = self._back.copy()
        origins[..., 0] += np.arange(width, dtype=np.float32)
        origins[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return origins

    @cached_property
    def occluded(self) -> GrayImage:
        """1 where the forward-backward check fails, else 0, uint8 [H, W]."""
        tolerance = _CHECK_PX + _CHECK_SHARE * _manhattan(self._back)
        contradiction = _manhattan(self._back + self._remap(self._forth))
        return np.asarray(contradiction > tolerance, np.bool_).view(np.uint8)

    @cached_property
    def _difference(self) -> GrayImage:
        """Difference of the current frame and the warped previous one, gray levels [H, W]."""
        return _blurred_difference(self._remap(self._previous), self._current)

    def propagate(
        self, masks: Sequence[FloatMap], points: Sequence[FloatMap] | None = None
    ) -> list[Propagated]:
        """Propagate objects, given by their logits [H, W] on the previous frame.

        An object whose points move together is warped as a whole by a similarity; pixels there that
        look different and move differently belong to an occluder. Others are warped by the dense
        flow, which is less accurate at borders beside slow, flat surroundings. points: of each
        object, from its last propagation (`Propagated.points`).
        """
        if not masks:
            return []
        known = [NO_POINTS] * len(masks) if points is None else points
        chosen = [
            followed if len(followed) >= _KEEP_POINTS else _inner_points(logits > 0)
            for logits, followed in zip(masks, known, strict=True)
        ]
        seen = self._track_points(np.concatenate(chosen))
        moved = np.split(seen, np.cumsum([len(points) for points in chosen])[:-1])
        propagated = []
        for logits, before, now in zip(masks, chosen, moved, strict=True):
            motion, inliers = _rigid_motion(before, now)
            one = self.propagate_rigid(logits, motion)
            loose = 1 - len(inliers) / max(1, len(before))
            points_now = _inside(now[inliers], one.logits)
            occluded = cv2.mean(self.occluded, (one.logits > 0).view(np.uint8))[0]
            propagated.append(one._replace(points=points_now, loose=loose, occluded=occluded))
        return propagated

    def _track_points(self, points: FloatMap) -> FloatMap:
        """Track points (x, y) [N, 2] of the previous frame; NaN where they are not found.

        Pyramidal Lucas-Kanade (Bouguet).
        """
        if not len(points) or min(self._current.shape) < SMALLEST_SIDE:
            return np.full_like(points, np.nan)
        now, found, _ = cv2.calcOpticalFlowPyrLK(
            self._previous,
            self._current,
            points[:, None],
            points[:, None].copy(),
            winSize=(_PATCH_PX, _PATCH_PX),
            maxLevel=_LEVELS,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 0.03),
        )
        return np.where(found > 0, now[:, 0], np.nan).astype(np.float32)

    def propagate_rigid(self, logits: FloatMap, motion: Vector | None) -> Propagated:
        """Propagate one object by a known similarity [2, 3]; None: by the dense flow."""
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
        """Pixels that differ from the object warped by `matrix` and that the flow explains better.

        Bool [h, w] of a window.
        """
        before = _warp_rigid(self._previous, matrix, window)
        difference = _blurred_difference(before, self._current[window])
        unexplained = cv2.subtract(difference, self._difference[window]) > _CLEAR_GRAY
        return np.asarray((difference > _FOREIGN_GRAY) & unexplained, np.bool_)

    def reverse(self) -> Flow:
        """The flow from this frame to the previous one."""
        return Flow(self._forth, self._back, self._current, self._previous)

    def warp(self, logits: FloatMap) -> FloatMap:
        """Warp logits [H, W] of the previous frame to this one.

        Border values are replicated into the image; pixels that were occluded become outside. Only
        the part that motion can reach is computed; the rest stays outside.
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
        np.minimum(moved, OCCLUDED_LOGIT, out=moved, where=self.occluded[window] > 0)
        propagated[window] = moved
        return propagated

    def _shift_inside(self, mask: npt.NDArray[np.bool_]) -> Vector:
        """Mean motion (x, y) of the pixels of a mask bool [H, W] of this frame."""
        return -np.array(cv2.mean(self._back, mask.view(np.uint8))[:2])

    def object_speed(self) -> FloatMap:
        """Flow magnitude without the camera's motion, float32 [H, W], pixels."""
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
        """Motion of the background; None if most of the image does not move together."""
        height, width = self._current.shape
        if min(height, width) < SMALLEST_SIDE:
            return None
        first, step = _CAMERA_STEP_PX // 2, _CAMERA_STEP_PX
        back = self._back[first::step, first::step].reshape(-1, 2)
        x, y = np.meshgrid(np.arange(first, width, step), np.arange(first, height, step))
        now = np.stack([x.reshape(-1), y.reshape(-1)], 1).astype(np.float32)
        matrix, background = cv2.estimateAffinePartial2D(
            now + back, now, ransacReprojThreshold=_CAMERA_INLIER_PX, maxIters=100
        )
        if matrix is None or background.mean() < _BACKGROUND_SHARE:
            return None
        return CameraMotion(np.asarray(matrix, np.float64))

    def _remap(self, image: Any, window: Window = (slice(None), slice(None))) -> Any:
        """Warp an image of the previous frame to this one, within a window."""
        origins = self._origins[window]
        return cv2.remap(image, origins, _NO_MAP, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


def still_residual(previous: GrayImage, current: GrayImage) -> float:
    """`Flow.residual` of two frames uint8 [H, W] as if nothing moved, which is quick."""
    return _relative(_blurred_difference(previous, current), current)


def _relative(difference: GrayImage, current: GrayImage) -> float:
    contrast = float(cv2.meanStdDev(current)[1][0, 0])
    return float(cv2.mean(difference)[0] / (contrast + _LEAST_CONTRAST))


def _box(mask: npt.NDArray[np.bool_]) -> Window:
    """Rows and columns of a mask's box [H, W]; empty if the mask is."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def _window(box: Window, matrix: Vector, size_hw: tuple[int, ...]) -> Window:
    """The part of an image where a box lies after a motion, with a margin."""
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
    inner = cv2.erode(padded, _KERNEL_3X3)[1:-1, 1:-1]
    found = np.flatnonzero(inner)
    if len(found) < _LEAST_POINTS:
        found = np.flatnonzero(part)
    y, x = np.divmod(found[:: max(1, len(found) // _POINTS)], max(1, part.shape[1]))
    return np.stack([x + columns.start, y + rows.start], 1).astype(np.float32)


def _rigid_motion(points: FloatMap, moved: FloatMap) -> tuple[Vector | None, npt.NDArray[np.intp]]:
    """Similarity, float64 [2, 3], of most points and the inliers' indices; None if there is none.

    points, moved: (x, y) [N, 2] before and after, NaN where a point was not found again.
    """
    found = np.flatnonzero(moved[:, 0] == moved[:, 0])  # not NaN
    none = found[:0]
    if len(found) < _LEAST_POINTS:
        return None, none
    matrix, inliers = cv2.estimateAffinePartial2D(
        points[found], moved[found], ransacReprojThreshold=_INLIER_PX, maxIters=100
    )
    if matrix is None or np.count_nonzero(inliers) < _INLIER_SHARE * len(found):
        return None, none
    return np.asarray(matrix, np.float64), found[inliers[:, 0] > 0]


def _inside(points: FloatMap, logits: FloatMap) -> FloatMap:
    """The points (x, y) [N, 2] that lie in an object."""
    height, width = logits.shape
    x, y = (points + 0.5).astype(np.intp).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    inside[inside] = logits[y[inside], x[inside]] > 0
    return np.asarray(points[inside], np.float32)


def _warp_rigid(image: Any, matrix: Vector, window: Window) -> Any:
    """A window of an image [H, W] warped by a similarity; border values are replicated."""
    rows, columns = window
    placed = matrix.copy()
    placed[:, 2] -= columns.start, rows.start
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return cv2.warpAffine(image, placed, size, borderMode=cv2.BORDER_REPLICATE)


def _blurred_difference(a: GrayImage, b: GrayImage) -> GrayImage:
    """Absolute difference of two images uint8 [H, W], slightly blurred."""
    return np.asarray(cv2.blur(cv2.absdiff(a, b), (3, 3)), np.uint8)


def _manhattan(vectors: FloatMap) -> FloatMap:
    """|x| + |y| of vectors [H, W, 2]."""
    lengths = np.abs(vectors)
    return np.asarray(lengths[..., 0] + lengths[..., 1], np.float32)
