"""The edge of a matte: holes and specks by size, flicker, growing, softening, feathering."""

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

_GUIDE_EPS = 4e-4  # a variance of luma (0 to 1): below it the picture has no edge to follow
_DOUBTED = 0.02  # weight of the mask near its own edge
_STEEPER = 1.5
_SHORT_SIDES = 120  # the radius of a soft edge is the picture's shorter side by this
_FAR_PX = 1e6
_LEVELS = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Edges:
    """What is done to masks before they become mattes, in this order.

    fill_holes_px, remove_islands_px: holes and pieces of up to so many pixels. smooth_frames: of
    so many frames around one, a pixel is the object's where it is on most; odd, 1 leaves it.
    grow_px: outwards, negative inwards. soft: the edge is drawn to the one in the picture.
    feather_px: to both sides of the edge, a ramp.

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
"""Masks as they are."""


def clean_mask(mask: Mask, edges: Edges) -> Mask:
    """The mask bool [H, W] without small holes and pieces; a hole does not touch the border."""
    if not mask.any():
        return mask
    if edges.fill_holes_px:
        mask = mask | _pieces(~mask, edges.fill_holes_px, connectivity=4, inner=True)
    if edges.remove_islands_px:
        mask = mask & ~_pieces(mask, edges.remove_islands_px, connectivity=8)
    return mask


def majority_vote(masks: Sequence[Mask], own: Mask) -> Mask:
    """Where most of the masks, bool [H, W] each, have the object; at a tie `own` decides."""
    if len(masks) == 1:
        return own
    votes = np.zeros(own.shape, np.uint16)
    for mask in masks:
        votes += mask
    votes *= 2
    return np.where(votes == len(masks), own, votes > len(masks))


def alpha_of(mask: Mask, edges: Edges, luma: Callable[[], GrayImage]) -> Alpha:
    """The opacity [H, W] of a mask bool [H, W].

    luma: gives the picture, uint8 [H, W]; called for soft edges only. Computed in doubles and
    rounded to 16 bits, since OpenCV's last digits vary from call to call.
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
        part = _depth(part) > -edges.grow_px
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
    """How far a soft edge reaches to either side of the mask's."""
    return max(2, round(min(size_hw) / _SHORT_SIDES))


def _guided_by_image(
    part: npt.NDArray[Any], luma: npt.NDArray[Any], radius: int
) -> npt.NDArray[Any]:
    """Opacity that follows the picture within `radius` of the mask's edge.

    The guided filter (He et al. 2010), fitted to what lies further from the edge than that: there
    the mask can be believed. The ramp it gives is then made steeper.
    """
    depth = _depth(part > 0)
    believed = np.where(np.abs(depth) >= radius, 1.0, _DOUBTED)
    wide = 2 * radius
    weight = _mean(believed, wide)

    def mean(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(_mean(believed * array, wide) / weight)

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


def _depth(mask: Mask) -> Alpha:
    """Distance to the edge, pixels: above 0 inside, below 0 outside; the border is no edge."""
    bits = mask.view(np.uint8)
    if mask.all() or not mask.any():
        return np.full(mask.shape, _FAR_PX if mask.any() else -_FAR_PX, np.float32)
    inside = cv2.distanceTransform(bits, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - bits, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _pieces(mask: Mask, largest_px: int, *, connectivity: int, inner: bool = False) -> Mask:
    """The connected pieces of up to `largest_px` pixels; inner: that do not touch the border."""
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
    chosen[0] = False  # what is not in the mask
    return np.asarray(chosen[labels], np.bool_)
