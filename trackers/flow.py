"""Dense optical flow at low resolution, and masks carried along it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

GrayImage = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

SMALLEST_SIDE = 16  # pixels; DIS needs room for its patches, below that nothing moves
HIDDEN_LOGIT = -0.5  # outside, but a decoded mask that says otherwise is soon believed
_SLACK_PX, _SLACK_SHARE = 3.0, 0.3  # contradiction allowed, pixels and share of the motion
_LEAST_CONTRAST = 5.0  # grey levels; keeps noise in a dark frame from looking like a cut


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
        back = np.zeros((*gray.shape, 2), np.float32)
        forth = np.zeros_like(back)
        if min(gray.shape) >= SMALLEST_SIDE:
            self._dis.calc(gray, previous, back)  # to where each pixel was
            self._dis.calc(previous, gray, forth)
        return Flow(back, forth, previous, gray)


class Flow:
    """Motion from one frame (`previous`) to the next (`present`), luma uint8 [H, W].

    back: float32 [H, W, 2], from each pixel of the present frame to where it was before; forth:
    from each pixel of the frame before to where it is now. Where they contradict each other
    (forward-backward check) the pixel was hidden before, and nothing is carried to it.
    speed: float32 [H, W], pixels that each moved.
    residual: how much of the present frame the frame before cannot explain, even moved along the
    flow: mean absolute difference by the present contrast. On real clips it stays below 0.3
    within a shot and exceeds 0.8 at a cut.
    """

    def __init__(
        self, back: FloatMap, forth: FloatMap, previous: GrayImage, present: GrayImage
    ) -> None:
        height, width = present.shape
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self.speed = np.asarray(np.hypot(back[..., 0], back[..., 1]), np.float32)
        self._from_x = x + back[..., 0]
        self._from_y = y + back[..., 1]
        returned = back + cv2.remap(
            forth, self._from_x, self._from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        slack = _SLACK_PX + _SLACK_SHARE * np.abs(back).sum(-1)
        self._hidden = np.abs(returned).sum(-1) > slack
        explained = cv2.remap(
            previous, self._from_x, self._from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        difference = float(cv2.absdiff(explained, present).mean())
        self.residual = difference / (float(present.std()) + _LEAST_CONTRAST)

    def warp(self, logits: FloatMap) -> FloatMap:
        """Carry logits [H, W] of the frame before.

        What enters the picture continues what is at the border; what was hidden is outside.
        """
        out = cv2.remap(
            logits, self._from_x, self._from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        carried = np.asarray(out, np.float32)
        return np.where(self._hidden, np.minimum(carried, HIDDEN_LOGIT), carried)
