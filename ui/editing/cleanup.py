"""Cleans up a mask: fills holes, drops specks, smooths the outline."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import PromptError

BoolMap = npt.NDArray[np.bool_]

MAX_AREA_PX = 1_000_000
MAX_SMOOTH_PX = 100


def clean(mask: BoolMap, *, holes: int = 0, specks: int = 0, smooth: int = 0) -> BoolMap:
    """Clean up a mask, bool [H, W]: smooth it first, then fill holes and drop specks.

    holes, specks: area in pixels up to which they are filled and dropped; smooth: pixels, as in
    `smooth_outline`. Raises `PromptError` if nothing would be left.
    """
    cleaned = drop_specks(fill_holes(smooth_outline(mask, smooth), holes), specks)
    if not cleaned.any():
        raise PromptError(
            "Nothing would be left of the mask; choose smaller specks or less smoothing."
        )
    return cleaned


def fill_holes(mask: BoolMap, area_px: int) -> BoolMap:
    """Fill holes up to an area; what touches the frame's border is no hole."""
    labels, stats = _parts(~mask, connectivity=4)
    x, y, width, height = stats[:, :4].T
    inside = (x > 0) & (y > 0) & (x + width < mask.shape[1]) & (y + height < mask.shape[0])
    holes = inside & (stats[:, cv2.CC_STAT_AREA] <= area_px)
    return np.asarray(mask | holes[labels])


def drop_specks(mask: BoolMap, area_px: int) -> BoolMap:
    """Drop parts up to an area that are not connected with the rest."""
    labels, stats = _parts(mask, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] > area_px
    return np.asarray(mask & large[labels])


def smooth_outline(mask: BoolMap, radius_px: int) -> BoolMap:
    """Smooth the outline: what is narrower than about twice the radius is rounded off or filled.

    The mask is blurred and thresholded at one half; the frame's border is continued.
    """
    if not radius_px:
        return mask.copy()
    blurred = cv2.GaussianBlur(
        mask.astype(np.float32), (0, 0), radius_px / 2, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(blurred > 0.5)


def _parts(
    mask: BoolMap, *, connectivity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Labels [H, W] of the connected parts, and their statistics [n, 5]; 0 is what is outside."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    stats[0] = 0  # never small, never a hole
    return np.asarray(labels, np.int32), np.asarray(stats, np.int32)
