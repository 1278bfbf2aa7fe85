"""Cleans up a mask: fills holes, drops specks, smooths the outline."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.exports.edges import Edges, clean_mask

BoolMap = npt.NDArray[np.bool_]

MAX_AREA_PX = 1_000_000
MAX_SMOOTH_PX = 100


def clean(mask: BoolMap, *, holes: int = 0, specks: int = 0, smooth: int = 0) -> BoolMap:
    """Clean up a mask, bool [H, W]: smooth it first, then fill holes and drop specks.

    holes, specks: area in pixels up to which they are filled and dropped; smooth: pixels, as in
    `smooth_outline`. Raises `PromptError` if nothing would be left.
    """
    edges = Edges(fill_holes_px=holes, remove_islands_px=specks)
    cleaned = clean_mask(smooth_outline(mask, smooth), edges)
    if not cleaned.any():
        raise PromptError(
            "Nothing would be left of the mask; choose smaller specks or less smoothing."
        )
    return cleaned


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
