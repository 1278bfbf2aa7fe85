"""Detections in JSON, as in a file of JSON lines and in commands to a live run."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.detectors.rle import mask_of
from maskstream.pipeline.types import SizeHW

_LOGIT = 8.0  # of pixels inside a given mask

Number = Annotated[float, Field(allow_inf_nan=False)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class GivenBox(BaseModel):
    """One detection in JSON.

    xyxy: pixels of the displayed image. segmentation: its mask as in COCO, run lengths or polygons.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    xyxy: tuple[Number, Number, Number, Number]
    label: str = Field(min_length=1, max_length=100)
    score: Score = 1.0
    segmentation: Any = None

    def detected(self, size_hw: SizeHW) -> DetectedBox:
        """The detection on an image of this size.

        Raises `ValueError` if no part of the box is inside the image, or the mask is malformed.
        """
        height, width = size_hw
        x0, y0, x1, y1 = self.xyxy
        if not (x0 < min(x1, width) and y0 < min(y1, height) and x1 > 0 and y1 > 0):
            raise ValueError(
                f"the box {list(self.xyxy)} has no part inside the image of {width}x{height} pixels"
            )
        if self.segmentation is None:
            return DetectedBox(self.xyxy, self.label, self.score)
        inside = mask_of(self.segmentation, size_hw)
        mask = np.where(inside, np.float32(_LOGIT), np.float32(-_LOGIT))
        return DetectedBox(self.xyxy, self.label, self.score, mask)
