"""Interactive prediction on one image: `set_image`, then `predict` repeatedly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.find import find_model
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from maskstream.pipeline.segmenter.model import Features, OpenVinoSegmenter, PromptBatch
from maskstream.pipeline.sources.arrays import as_frame
from maskstream.pipeline.types import Frame, RgbImage, SizeHW


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted masks of one prompt, best first.

    masks: bool [K, H, W] at the image's size; iou: predicted, float32 [K]; logits: float32 [K, 4h,
    4w]; one of them can be the `mask` of the next `predict`.
    """

    masks: npt.NDArray[np.bool_]
    iou: npt.NDArray[np.float32]
    logits: FloatMap


class Predictor:
    """Promptable model for one image at a time.

    >>> predictor = Predictor("lite")                               # doctest: +SKIP
    >>> predictor.set_image(rgb)                                    # doctest: +SKIP
    >>> predictor.predict(points=[(320, 200)], labels=[1]).masks    # doctest: +SKIP
    """

    def __init__(self, model: str | Path = "lite", *, threads: int = 2) -> None:
        self._folder = find_model(model)
        self._threads = threads
        self._segmenter: OpenVinoSegmenter | None = None
        self._features: Features | None = None

    def set_image(self, image: RgbImage | Frame) -> None:
        """Encode an image: RGB uint8 [H, W, 3] or a `Frame`."""
        frame = as_frame(image)
        if self._segmenter is None or self._segmenter.geometry.frame_hw != frame.size_hw:
            self._segmenter = OpenVinoSegmenter(self._folder, frame.size_hw, threads=self._threads)
        self._features = self._segmenter.encode(frame)

    def predict(
        self,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask: FloatMap | None = None,
    ) -> Prediction:
        """Segment the object of a prompt.

        points: [N, 2] pixels; labels: [N], 1 the object, 0 not the object; box: xyxy pixels; mask:
        logits [4h, 4w] of an earlier prediction. A single positive point is ambiguous and gives
        three masks, any other prompt one. Raises `PromptError`.
        """
        if self._segmenter is None or self._features is None:
            raise PromptError("call set_image before predict")
        prompt = single_prompt(self._segmenter.geometry.frame_hw, points, labels, box)
        if mask is not None:
            prompt = PromptBatch(prompt.xy, prompt.labels, mask[None, None].astype(np.float32))
        decoded = self._segmenter.decode(self._features, prompt)
        ambiguous = box is None and mask is None and prompt.labels.shape[1] == 2
        chosen = 1 + np.argsort(-decoded.iou[0, 1:]) if ambiguous else np.array([0])
        logits = decoded.masks[0, chosen]
        geometry = self._segmenter.geometry
        full = np.stack([geometry.to_size(m, geometry.frame_hw) > 0 for m in logits])
        return Prediction(full, decoded.iou[0, chosen], logits)


def single_prompt(
    frame_hw: SizeHW,
    points: npt.ArrayLike | None,
    labels: npt.ArrayLike | None,
    box: npt.ArrayLike | None,
) -> PromptBatch:
    """Build one prompt from points (pixel indices) and a box. Raises `PromptError`."""
    xy = np.zeros((0, 2), np.float32) if points is None else np.asarray(points, np.float32)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise PromptError("points must be a list of (x, y) pairs")
    signs = np.ones(len(xy)) if labels is None else np.asarray(labels)
    if signs.shape != (len(xy),) or not np.isin(signs, (0, 1)).all():
        raise PromptError("labels must be 0 or 1, one for each point")
    if not len(xy) and box is None:
        raise PromptError("give at least one point or a box")
    height, width = frame_hw
    if len(xy) and not ((xy >= 0) & (xy < (width, height))).all():
        raise PromptError(f"a point lies outside the image of {width}x{height} pixels")
    xy = xy + 0.5
    if box is None:
        return PromptBatch.points(xy[None], signs[None])
    corners = np.asarray(box, np.float32).reshape(-1)
    if corners.shape != (4,) or not (corners[2:] > corners[:2]).all():
        raise PromptError("a box is x0, y0, x1, y1 with x1 > x0 and y1 > y0")
    if not ((corners[:2] < (width, height)) & (corners[2:] > 0)).all():
        raise PromptError(f"the box lies outside the image of {width}x{height} pixels")
    corners = np.clip(corners, 0, (width, height, width, height))
    return PromptBatch(
        np.concatenate([corners.reshape(2, 2), xy])[None].astype(np.float32),
        np.concatenate([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], signs])[None].astype(np.float32),
    )
