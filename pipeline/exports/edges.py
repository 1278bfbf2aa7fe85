"""Edge processing of mattes: holes, islands, temporal smoothing, growing, softening, feather."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.frames import Mask, box_xywh
from maskstream.pipeline.types import GrayImage

Alpha = npt.NDArray[np.float32]
"""Opacity [H, W], 0 to 1."""

_GUIDE_EPS = 4e-4  # variance of luma (0 to 1) below which the image has no edge to follow
_EDGE_WEIGHT = 0.02  # weight of mask pixels near the edge in the fit
_STEEPER = 1.5
_SHORT_SIDES = 120  # radius of a soft edge: the image's shorter side divided by this
_FAR_PX = 1e6
_LEVELS = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Edges:
    """Edge options of mattes, applied in this order.

    fill_holes_px, remove_islands_px: largest area of holes and islands. smooth_frames: window of a
    majority vote per pixel; odd, 1 for none. grow_px: outward, negative inward. soft: the edge
    follows the one in the image. feather_px: width of a ramp to both sides of the edge.

    Raises:
        ConfigError: a number is out of range.
    """

    soft: bool = False
    feather_px: float = 0.0
    grow_px: float = 0.0
    fill_holes_px: int = 0
    remove_islands_px: int = 0
    smooth_frames: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.feather_px) and math.isfinite(self.grow_px)):
            raise ConfigError("--feather and --grow take pixels, finite numbers.")
        for name, value in (
            ("--feather", self.feather_px),
            ("--fill-holes", self.fill_holes_px),
            ("--remove-islands", self.remove_islands_px),
        ):
            if value < 0:
                raise ConfigError(f"{name} must be 0 or more, not {value:g}.")
        if self.smooth_frames < 1 or self.smooth_frames % 2 == 0:
            raise ConfigError(
                f"--smooth takes an odd number of frames (1, 3, 5, …), not {self.smooth_frames}."
            )


PLAIN = Edges()
"""Options that leave masks unchanged."""


def clean_mask(mask: Mask, edges: Edges) -> Mask:
    """Remove small holes and islands of a mask, bool [H, W]; a hole does not touch the border."""
    if not mask.any():
        return mask
    if edges.fill_holes_px:
        mask = mask | _components(~mask, edges.fill_holes_px, connectivity=4, inner=True)
    if edges.remove_islands_px:
        mask = mask & ~_components(mask, edges.remove_islands_px, connectivity=8)
    return mask


def majority_vote(masks: Sequence[Mask], own: Mask) -> Mask:
    """Pixels set in most of the masks, bool [H, W] each; `own` decides ties."""
    if len(masks) == 1:
        return own
    votes = np.zeros(own.shape, np.uint16)
    for mask in masks:
        votes += mask
    votes *= 2
    return np.where(votes == len(masks), own, votes > len(masks))


def alpha_of(mask: Mask, edges: Edges, luma: Callable[[], GrayImage]) -> Alpha:
    """Compute the opacity [H, W] of a mask, bool [H, W].

    luma: returns the image, uint8 [H, W]; called for soft edges only. Computed in float64 and
    rounded to 16 bits, because OpenCV's last digits vary between calls.
    """
    alpha = np.zeros(mask.shape, np.float32)
    if not mask.any():
        return alpha
    radius = soft_radius_px(mask.shape) if edges.soft else 0
    margin = math.ceil(max(0.0, edges.grow_px) + edges.feather_px) + 4 * radius + 2
    left, top, width, height = box_xywh(mask)
    window = (
        slice(max(0, top - margin), top + height + margin),
        slice(max(0, left - margin), left + width + margin),
    )
    part = mask[window]
    if edges.grow_px:
        part = _signed_distance(part) > -edges.grow_px
    soft: npt.NDArray[Any] = part.astype(np.float64)
    if edges.soft:
        soft = _guided_by_image(soft, luma()[window] / 255, radius)
    if edges.feather_px:
        side = 2 * math.ceil(edges.feather_px) + 1
        sigma = edges.feather_px / 2
        soft = cv2.GaussianBlur(soft, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    alpha[window] = np.rint(soft * _LEVELS) / _LEVELS
    return alpha


def soft_radius_px(size_hw: Sequence[int]) -> int:
    """Width of a soft edge to either side of the mask's edge."""
    return max(2, round(min(size_hw) / _SHORT_SIDES))


def _guided_by_image(
    part: npt.NDArray[Any], luma: npt.NDArray[Any], radius: int
) -> npt.NDArray[Any]:
    """Fit opacity to the image within `radius` of the mask's edge.

    Guided filter (He et al. 2010), fitted mainly to pixels further from the edge, where the mask is
    reliable. The resulting ramp is then steepened.
    """
    depth = _signed_distance(part > 0)
    reliability = np.where(np.abs(depth) >= radius, 1.0, _EDGE_WEIGHT)
    wide = 2 * radius
    weight = _mean(reliability, wide)

    def mean(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(_mean(reliability * array, wide) / weight)

    luma_mean, part_mean = mean(luma), mean(part)
    variance = mean(luma * luma) - luma_mean * luma_mean
    slope = (mean(luma * part) - luma_mean * part_mean) / (variance + _GUIDE_EPS)
    offset = part_mean - slope * luma_mean
    guided = _mean(slope, radius) * luma + _mean(offset, radius)
    steep = (guided - 0.5) * _STEEPER + 0.5
    near = 2 * depth / radius
    return np.asarray(np.clip(steep, np.clip(near - 1, 0, 1), np.clip(near + 2, 0, 1)))


def _mean(array: npt.NDArray[Any], radius: int) -> npt.NDArray[Any]:
    side = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.blur(array, side, borderType=cv2.BORDER_REPLICATE))


def _signed_distance(mask: Mask) -> Alpha:
    """Signed distance to the edge, pixels: positive inside; the image border is not an edge."""
    bits = mask.view(np.uint8)
    if mask.all() or not mask.any():
        return np.full(mask.shape, _FAR_PX if mask.any() else -_FAR_PX, np.float32)
    inside = cv2.distanceTransform(bits, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - bits, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _components(mask: Mask, largest_px: int, *, connectivity: int, inner: bool = False) -> Mask:
    """Connected components of up to `largest_px` pixels; inner: not touching the border."""
    _, labels, figures, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    height, width = mask.shape
    left, top = figures[:, cv2.CC_STAT_LEFT], figures[:, cv2.CC_STAT_TOP]
    right = left + figures[:, cv2.CC_STAT_WIDTH]
    bottom = top + figures[:, cv2.CC_STAT_HEIGHT]
    chosen = figures[:, cv2.CC_STAT_AREA] <= largest_px
    if inner:
        chosen &= (left > 0) & (top > 0) & (right < width) & (bottom < height)
    chosen[0] = False  # background
    return np.asarray(chosen[labels], np.bool_)
