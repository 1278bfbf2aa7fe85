"""Dense optical flow at low resolution, and masks carried along it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

GrayImage = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

OUTSIDE_LOGIT = -10.0
SMALLEST_SIDE = 16  # pixels; DIS needs room for its patches, below that nothing moves


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
        difference = float(cv2.absdiff(previous, gray).mean()) / 255
        back = np.zeros((*gray.shape, 2), np.float32)
        if min(gray.shape) >= SMALLEST_SIDE:
            self._dis.calc(gray, previous, back)  # to where each pixel was
        return Flow(back, difference)


class Flow:
    """back: float32 [H, W, 2], from each pixel of this frame to where it was in the one before.

    difference: mean absolute change of luma, 0..1.
    """

    def __init__(self, back: FloatMap, difference: float) -> None:
        self.back = back
        self.difference = difference
        height, width = back.shape[:2]
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._from_x = x + back[..., 0]
        self._from_y = y + back[..., 1]

    def warp(self, logits: FloatMap) -> FloatMap:
        """Carry logits [H, W] of the frame before to this one; what enters is outside."""
        out = cv2.remap(
            logits,
            self._from_x,
            self._from_y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=OUTSIDE_LOGIT,
        )
        return np.asarray(out, np.float32)
