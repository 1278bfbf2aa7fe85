"""Calibration of a camera, from the YAML file that ROS' camera_calibration writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.types import SizeHW

_ASPECT_MAX = 0.01  # difference of the two scales, relative
_COEFFICIENTS_MAX = 14


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """Calibration of a camera, with the fields of ROS' sensor_msgs/CameraInfo.

    size_hw: of the images that it was calibrated with. d: distortion coefficients. k: intrinsic
    matrix, 9 values. r: rectification, 9 values. p: projection, 12 values. All are row-major.
    """

    size_hw: SizeHW
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    def at(self, size_hw: SizeHW) -> CameraInfo:
        """The calibration for images scaled to `size_hw`.

        Raises `ConfigError` if their aspect differs, as of a crop.
        """
        y, x = (new / old for new, old in zip(size_hw, self.size_hw, strict=True))
        if abs(x / y - 1) > _ASPECT_MAX:
            raise ConfigError(
                f"The camera was calibrated at {self.size_hw[1]}x{self.size_hw[0]}, but the source "
                f"is {size_hw[1]}x{size_hw[0]}, which is no scaled image of it; calibrate again."
            )
        scales = (x, y, 1.0)
        return CameraInfo(
            size_hw,
            self.distortion_model,
            self.d,
            tuple(value * scales[n // 3] for n, value in enumerate(self.k)),
            self.r,
            tuple(value * scales[n // 4] for n, value in enumerate(self.p)),
        )


def load_camera_info(path: Path) -> CameraInfo:
    """Read the YAML file that camera_calibration writes. Raises `ConfigError`."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the calibration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no calibration: it holds no keys and values")
    try:
        size_hw = (int(values["image_height"]), int(values["image_width"]))
        info = CameraInfo(
            size_hw,
            str(values.get("distortion_model", "plumb_bob")),
            _numbers(values, "distortion_coefficients", range(_COEFFICIENTS_MAX + 1)),
            _numbers(values, "camera_matrix", [9]),
            _numbers(values, "rectification_matrix", [9]),
            _numbers(values, "projection_matrix", [12]),
        )
    except KeyError as error:
        raise ConfigError(f"{path} is no calibration of ROS: it has no key {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no calibration of ROS: {error}") from error
    if min(size_hw) < 1:
        raise ConfigError(f"{path} is no calibration of ROS: its images have no pixels")
    return info


def _numbers(values: dict[str, Any], key: str, counts: Sequence[int]) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in values[key]["data"])
    if len(numbers) not in counts:
        raise ValueError(f"{key} has {len(numbers)} values, not {counts[-1]}")
    return numbers
