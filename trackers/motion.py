"""Motion of a box: a Kalman filter with constant velocity and the time step of the timestamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

# Standard deviations as shares of the box's size (SORT/ByteTrack's practice of noise ∝ size).
_POSITION_NOISE = 0.05
_VELOCITY_NOISE = 1.0  # per second
_MEASUREMENT_NOISE = 0.03


@dataclass(slots=True)
class KalmanBox:
    """State of a box: centre, width, height and their rates a second.

    mean: [8] (cx, cy, w, h and rates); covariance: [8, 8]; all in pixels and seconds.
    """

    mean: Vector
    covariance: Vector

    @classmethod
    def start(cls, box_xyxy: Vector) -> KalmanBox:
        """Begin at a measured box, at rest."""
        measured = to_centre(box_xyxy)
        size = max(measured[2], measured[3], 1.0)
        spread = np.r_[np.full(4, _MEASUREMENT_NOISE * size), np.full(4, _VELOCITY_NOISE * size)]
        return cls(np.r_[measured, np.zeros(4)], np.diag(spread**2))

    @property
    def box_xyxy(self) -> Vector:
        """Present estimate of the box."""
        return to_corners(self.mean[:4])

    def predict(self, dt_s: float) -> None:
        """Move on by `dt_s` seconds."""
        step = np.eye(8)
        step[:4, 4:] = dt_s * np.eye(4)
        size = max(self.mean[2], self.mean[3], 1.0)
        noise = np.r_[
            np.full(4, _POSITION_NOISE * size * dt_s), np.full(4, _VELOCITY_NOISE * size * dt_s)
        ]
        self.mean = step @ self.mean
        self.mean[2:4] = np.maximum(self.mean[2:4], 1.0)
        self.covariance = step @ self.covariance @ step.T + np.diag(noise**2)

    def update(self, box_xyxy: Vector) -> None:
        """Correct by a measured box."""
        measured = to_centre(box_xyxy)
        size = max(measured[2], measured[3], 1.0)
        innovation = self.covariance[:4, :4] + np.eye(4) * (_MEASUREMENT_NOISE * size) ** 2
        gain = np.linalg.solve(innovation, self.covariance[:4]).T
        self.mean = self.mean + gain @ (measured - self.mean[:4])
        self.covariance = self.covariance - gain @ innovation @ gain.T


def to_centre(box_xyxy: Vector) -> Vector:
    """(x0, y0, x1, y1) to (cx, cy, w, h)."""
    x0, y0, x1, y1 = box_xyxy
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float64)


def to_corners(centre: Vector) -> Vector:
    """(cx, cy, w, h) to (x0, y0, x1, y1)."""
    cx, cy, w, h = centre
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], np.float64)
