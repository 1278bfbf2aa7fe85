"""Synthetic images and points for the benchmarks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import RgbImage, SizeHW


def sample_image(size_hw: SizeHW, phase: float = 0.0) -> RgbImage:
    """A smooth RGB image with edges, uint8 [H, W, 3]."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] / max(size_hw)
    waves = [np.sin(9 * x + 4 * y + phase), np.cos(12 * y - 5 * x), np.sin(63 * (x - 0.4) ** 2)]
    disc = (x - 0.45) ** 2 + (y - 0.3) ** 2 < 0.04
    values = 127 + 110 * np.where(disc, -1, 1)[..., None] * np.stack(waves, -1)
    return np.asarray(values, np.uint8)


def sample_points(count: int) -> npt.NDArray[np.float64]:
    """Points for `count` single-point prompts, [count, 1, 2] in 0..1."""
    return np.random.default_rng(count).uniform(0.05, 0.95, (count, 1, 2))
