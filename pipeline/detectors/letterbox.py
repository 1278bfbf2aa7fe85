"""Place an image in a network's input of fixed size, and bring boxes and masks back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from maskstream.pipeline.detectors.detector import FloatMap
from maskstream.pipeline.types import RgbImage, SizeHW

PAD_GRAY = 114  # of the bars, as YOLO is trained


@dataclass(frozen=True, slots=True)
class Fit:
    """Where an image of `size_hw` lies in an input of `input_hw`.

    valid_hw: size to which it is scaled. top, left: pixels of the bars before it.
    """

    size_hw: SizeHW
    input_hw: SizeHW
    valid_hw: SizeHW
    top: int
    left: int

    def place(self, image: RgbImage) -> RgbImage:
        """The input uint8 [H, W, 3] of an image that is already scaled to `valid_hw`."""
        if self.valid_hw == self.input_hw:
            return image
        canvas = np.full((*self.input_hw, 3), PAD_GRAY, np.uint8)
        height, width = self.valid_hw
        canvas[self.top : self.top + height, self.left : self.left + width] = image
        return canvas

    def to_image(self, xyxy: FloatMap) -> FloatMap:
        """Boxes [N, 4] of the input in pixels of the image."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array(self.size_hw[::-1] * 2) / np.array(self.valid_hw[::-1] * 2)
        return np.asarray((xyxy - offset) * scale, np.float32)

    def crop(self, logits: FloatMap) -> FloatMap:
        """The image's part of a map [h, w] of the whole input, at about the same resolution."""
        rows, columns = logits.shape
        height, width = self.input_hw
        fy, fx = rows / height, columns / width
        size = (max(1, round(self.valid_hw[1] * fx)), max(1, round(self.valid_hw[0] * fy)))
        scale_x, scale_y = self.valid_hw[1] * fx / size[0], self.valid_hw[0] * fy / size[1]
        matrix = np.array(
            [
                [scale_x, 0, self.left * fx + (scale_x - 1) / 2],
                [0, scale_y, self.top * fy + (scale_y - 1) / 2],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cropped = cv2.warpAffine(logits, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cropped, np.float32)


def fit_image(size_hw: SizeHW, input_hw: SizeHW, *, letterbox: bool) -> Fit:
    """Fit an image into an input: with its aspect and bars on both sides, or stretched."""
    if not letterbox:
        return Fit(size_hw, input_hw, input_hw, 0, 0)
    scale = min(input_hw[0] / size_hw[0], input_hw[1] / size_hw[1])
    sides = zip(size_hw, input_hw, strict=True)
    height, width = (max(1, min(whole, round(side * scale))) for side, whole in sides)
    return Fit(
        size_hw,
        input_hw,
        (height, width),
        (input_hw[0] - height) // 2,
        (input_hw[1] - width) // 2,
    )
