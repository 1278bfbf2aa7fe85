"""Interactive prediction on one image: `set_image`, then `predict` repeatedly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.open import locate_model, open_segmenter
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter
from maskstream.pipeline.sources.still import StillImage, as_frame
from maskstream.pipeline.types import SizeHW, WantedDevice, WantedEngine


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

    Threads wait for each other, but they share the image: give each its own predictor, or a lock
    around `set_image` and its `predict`s.

    >>> predictor = Predictor("lite")                               # doctest: +SKIP
    >>> predictor.set_image(rgb)                                    # doctest: +SKIP
    >>> predictor.predict(points=[(320, 200)], labels=[1]).masks    # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path = "lite",
        *,
        device: WantedDevice = "cpu",
        engine: WantedEngine = "auto",
        threads: int = 2,
    ) -> None:
        """model, device, engine, threads and errors: as `open_model`."""
        self._config = PipelineConfig(
            model=str(model), device=device, engine=engine, threads=ThreadsConfig(inference=threads)
        )
        self._model = locate_model(self._config)
        self._segmenter: Segmenter | None = None
        self._features: Features | None = None
        self._lock = Lock()

    def set_image(self, image: StillImage) -> None:
        """Encode an image: a path, a PIL image, an array or tensor, or a `Frame`.

        Arrays are gray [H, W], or RGB or RGBA with channels last or first. The whole range of the
        dtype is black to white: uint8 0 to 255, uint16 0 to 65535, floats 0 to 1, bool; other
        values are refused (`rgb_of` has the rule). EXIF orientation is applied to files, not to PIL
        images. If it fails there is no image, not the one before. Raises `SourceError`.
        """
        with self._lock:
            self._features = None
            frame = as_frame(image)
            if self._segmenter is None or self._segmenter.geometry.frame_hw != frame.size_hw:
                self._segmenter = open_segmenter(self._config, self._model, frame.size_hw)
            self._features = self._segmenter.encode(frame)

    def predict(
        self,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Prediction:
        """Segment the object of a prompt.

        points: [N, 2] pixels; labels: [N], 1 the object, 0 not the object; box: xyxy pixels; mask:
        logits [4h, 4w] or [1, 4h, 4w] of an earlier prediction. A single positive point is
        ambiguous and gives three masks, any other prompt one. Raises `PromptError`.
        """
        with self._lock:
            if self._segmenter is None or self._features is None:
                raise PromptError("there is no image: call set_image before predict")
            geometry = self._segmenter.geometry
            prompt = single_prompt(geometry.frame_hw, points, labels, box)
            if mask is not None:
                logits = mask_prompt(geometry.grid_hw, mask)
                prompt = PromptBatch(prompt.xy, prompt.labels, logits)
            decoded = self._segmenter.decode(self._features, prompt)
        ambiguous = box is None and mask is None and prompt.labels.shape[1] == 2
        chosen = 1 + np.argsort(-decoded.iou[0, 1:]) if ambiguous else np.array([0])
        logits = decoded.masks[0, chosen]
        full = np.stack([geometry.to_size(m, geometry.frame_hw) > 0 for m in logits])
        return Prediction(full, decoded.iou[0, chosen], logits)


def mask_prompt(grid_hw: SizeHW, mask: npt.ArrayLike) -> FloatMap:
    """Logits [h, w] or [1, h, w] of an earlier prediction as [1, 1, h, w]. Raises `PromptError`."""
    logits = _floats(mask, "a mask is logits of an earlier prediction")
    if logits.shape not in (grid_hw, (1, *grid_hw)) or not np.isfinite(logits).all():
        height, width = grid_hw
        raise PromptError(
            f"a mask is logits [{height}, {width}] of an earlier prediction of an image of this "
            f"size (`logits[0]`), not {list(logits.shape)}"
        )
    return logits.reshape(1, 1, *grid_hw)


def single_prompt(
    frame_hw: SizeHW,
    points: npt.ArrayLike | None,
    labels: npt.ArrayLike | None,
    box: npt.ArrayLike | None,
) -> PromptBatch:
    """Build one prompt from points (pixel indices) and a box. Raises `PromptError`."""
    pairs = "points must be a list of (x, y) pairs"
    xy = np.zeros((0, 2), np.float32) if points is None else _floats(points, pairs)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise PromptError(pairs)
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
    corner_names = "a box is x0, y0, x1, y1 with x1 > x0 and y1 > y0"
    corners = _floats(box, corner_names).reshape(-1)
    if corners.shape != (4,) or not (corners[2:] > corners[:2]).all():
        raise PromptError(corner_names)
    if not ((corners[:2] < (width, height)) & (corners[2:] > 0)).all():
        raise PromptError(f"the box lies outside the image of {width}x{height} pixels")
    corners = np.clip(corners, 0, (width, height, width, height))
    return PromptBatch(
        np.concatenate([corners.reshape(2, 2), xy])[None].astype(np.float32),
        np.concatenate([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], signs])[None].astype(np.float32),
    )


def _floats(values: npt.ArrayLike, wanted: str) -> FloatMap:
    """The values as float32. Raises `PromptError` with what is wanted if they are not numbers."""
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(wanted) from error
