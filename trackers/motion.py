"""Kalman filter of a box with constant velocity and time steps from the timestamps.

All noise is diagonal, so the filter of eight values splits into four independent filters of two
(value and rate), computed together. Velocities are relative to the background: camera motion is
compensated before each step, as in BoT-SORT (arXiv 2206.14651).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

# Standard deviations as shares of the box's size (SORT/ByteTrack's practice of noise ∝ size).
_POSITION_NOISE = 0.05
_VELOCITY_NOISE = 1.0  # per second
_MEASUREMENT_NOISE = 0.03
_FLOW_NOISE = 0.2  # per second; of the flow's mean velocity inside the mask


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """Motion of the background from one frame to the next, pixels: p -> matrix [2, 3] (p, 1).

    A similarity: translation, scale and rotation.
    """

    matrix: Vector

    @property
    def scale(self) -> float:
        """Growth of lengths."""
        return math.hypot(self.matrix[0, 0], self.matrix[1, 0])

    def moved(self, xy: Vector) -> Vector:
        """Move a point (x, y) [2] with the background."""
        return np.asarray(self.matrix[:, :2] @ xy + self.matrix[:, 2], np.float64)


@dataclass(slots=True)
class KalmanBox:
    """State of a box: (cx, cy, w, h) and their rates, pixels and seconds.

    value, rate: [4]; value_var, rate_var: their variances, cross_cov: covariance of a value and its
    own rate, each [4].
    """

    value: Vector
    rate: Vector
    value_var: Vector
    rate_var: Vector
    cross_cov: Vector

    @classmethod
    def start(cls, box_xyxy: Vector) -> KalmanBox:
        """Start at a measured box with zero velocity."""
        value = to_center(box_xyxy)
        size = max(value[2], value[3], 1.0)
        spread = np.full(4, (_MEASUREMENT_NOISE * size) ** 2)
        return cls(
            value, np.zeros(4), spread, np.full(4, (_VELOCITY_NOISE * size) ** 2), np.zeros(4)
        )

    @property
    def box_xyxy(self) -> Vector:
        """Current estimate of the box."""
        return to_xyxy(self.value)

    def predict(self, dt_s: float, camera: CameraMotion | None = None) -> None:
        """Predict `dt_s` seconds ahead, with the camera's motion in that time."""
        if camera is not None:
            self._compensate_camera(camera)
        size = max(self.value[2], self.value[3], 1.0)
        self.value = self.value + dt_s * self.rate
        self.value[2:] = np.maximum(self.value[2:], 1.0)
        self.value_var = (
            self.value_var
            + dt_s * (2 * self.cross_cov + dt_s * self.rate_var)
            + (_POSITION_NOISE * size * dt_s) ** 2
        )
        self.cross_cov = self.cross_cov + dt_s * self.rate_var
        self.rate_var = self.rate_var + (_VELOCITY_NOISE * size * dt_s) ** 2

    def update(self, box_xyxy: Vector, velocity_xy: Vector | None = None) -> None:
        """Correct by a measured box and, if known, the object's velocity, pixels per second."""
        measured = to_center(box_xyxy)
        size = max(measured[2], measured[3], 1.0)
        total = self.value_var + (_MEASUREMENT_NOISE * size) ** 2
        value_gain, rate_gain = self.value_var / total, self.cross_cov / total
        innovation = measured - self.value
        self.value = self.value + value_gain * innovation
        self.rate = self.rate + rate_gain * innovation
        self.rate_var = self.rate_var - rate_gain * self.cross_cov
        self.cross_cov = self.cross_cov * (1 - value_gain)
        self.value_var = self.value_var * (1 - value_gain)
        if velocity_xy is not None:
            self._correct_velocity(velocity_xy, _FLOW_NOISE * size)

    def _correct_velocity(self, velocity_xy: Vector, deviation: float) -> None:
        """Correct by the center's velocity."""
        total = self.rate_var[:2] + deviation**2
        value_gain, rate_gain = self.cross_cov[:2] / total, self.rate_var[:2] / total
        innovation = velocity_xy - self.rate[:2]
        self.value[:2] += value_gain * innovation
        self.rate[:2] += rate_gain * innovation
        self.value_var[:2] -= value_gain * self.cross_cov[:2]
        self.cross_cov[:2] *= 1 - rate_gain
        self.rate_var[:2] *= 1 - rate_gain

    def _compensate_camera(self, camera: CameraMotion) -> None:
        """Move and scale the state with the background."""
        scale = camera.scale
        self.value = np.concatenate([camera.moved(self.value[:2]), scale * self.value[2:]])
        self.rate = scale * self.rate
        self.value_var = scale**2 * self.value_var
        self.rate_var = scale**2 * self.rate_var
        self.cross_cov = scale**2 * self.cross_cov


def to_center(box_xyxy: Vector) -> Vector:
    """Convert a box (x0, y0, x1, y1) to (cx, cy, w, h)."""
    x0, y0, x1, y1 = box_xyxy
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float64)


def to_xyxy(center: Vector) -> Vector:
    """Convert a box (cx, cy, w, h) to (x0, y0, x1, y1)."""
    cx, cy, w, h = center
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], np.float64)
