"""FastSAM: everything is segmented first, and a prompt chooses among the masks.

FastSAM: arXiv 2306.12156 (github.com/CASIA-IVA-Lab/FastSAM). Its network is a detector with masks
of one class (YOLOv8-seg), so any detector with masks can stand in for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.detectors.graph import GraphDetector
from maskstream.pipeline.errors import DetectorError, ModelError
from maskstream.pipeline.segmenter.found_masks import FoundMasks
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
)
from maskstream.pipeline.segmenter.model import Decoded, Features, ModelCard, PromptBatch
from maskstream.pipeline.types import Frame, SizeHW

BoolMap = npt.NDArray[np.bool_]

_SCORE_MIN, _NMS_IOU = 0.4, 0.9  # of the authors' Inference.py
_MULTIPLE = 32
_ANSWERS = 4  # the single answer and three candidates, as of SAM's decoder
_NOTHING = -8.0  # logit of what is not found
_WORK = 60.0  # a medium YOLO's share of the budget of keyframes; not measured


class FastSamSegmenter:
    """A graph of a detector with masks as segmenter, for one frame size.

    A box takes the mask with the highest IoU with it, among those that fit the points if there are
    such. Points take all masks that hold a positive point, without those that hold a negative one;
    the three candidates are the masks with the highest scores that fit all points. `Decoded.iou` is
    the detector's score; where nothing is found the mask is empty and the score 0. Everything mode
    takes all masks.

    path, threads: as `GraphDetector`. input_share: of the grid's long side. Raises `ModelError` if
    the graph is no detector or gives no masks.
    """

    def __init__(
        self, path: Path, frame_hw: SizeHW, *, threads: int = 2, input_share: float = 1.0
    ) -> None:
        try:
            self._detector = GraphDetector(
                path, score_min=_SCORE_MIN, nms_iou=_NMS_IOU, threads=threads
            )
        except DetectorError as error:
            raise ModelError(str(error)) from error
        if not self._detector.masks:
            raise ModelError(
                f"{path.name} gives boxes without masks, so it cannot answer prompts: give a "
                "network for segmentation such as FastSAM, or this one as --detector"
            )
        self.card = ModelCard(
            name=path.stem,
            long_side=max(self._detector.input_hw),
            multiple=_MULTIPLE,
            pad_rgb=(0, 0, 0),
            mask_prompts=False,
            everything={"iou_min": _SCORE_MIN, "stability_min": 0.0},
            encoder_work=_WORK,
            method="detector with masks",
        )
        self.geometry = self.card.fit(frame_hw, input_share)

    def encode(self, frame: Frame) -> FoundMasks:
        """Find all masks of a frame. Raises `DetectorError`."""
        found = self._detector.detect(frame)
        kept = [
            (self.geometry.from_size(each.mask), each.score)
            for each in found
            if each.mask is not None
        ]
        kept.sort(key=lambda pair: -int((pair[0] > 0).sum()))
        logits = np.array([logits for logits, _ in kept], np.float32)
        shape = (-1, *self.geometry.grid_hw)
        return FoundMasks({}, logits.reshape(shape), np.array([s for _, s in kept], np.float32))

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Choose masks for prompts.

        Raises `PromptError` on mask prompts and `TypeError` on another segmenter's features.
        """
        if not isinstance(features, FoundMasks):
            raise TypeError("these features were not encoded by a FastSamSegmenter")
        self.card.check(prompts)
        shape = (len(prompts), _ANSWERS)
        masks = np.full((*shape, *self.geometry.grid_hw), _NOTHING, np.float32)
        scores = np.zeros(shape, np.float32)
        cells = prompts.xy * np.array(self.geometry.scale_xy) / self.geometry.cell
        for i, (xy, labels) in enumerate(zip(cells, prompts.labels, strict=True)):
            prompt = _Prompt(features, xy, labels)
            for token, chosen in enumerate(prompt.chosen()):
                masks[i, token] = features.logits[chosen]
                scores[i, token] = features.scores[chosen]
            if not prompt.boxed:
                masks[i, 0], scores[i, 0] = prompt.union(_NOTHING)
        return Decoded(masks, scores)


class _Prompt:
    """One prompt on the masks of a frame; xy [N, 2] in cells of the grid."""

    def __init__(
        self, found: FoundMasks, xy: npt.NDArray[np.floating], labels: npt.NDArray[np.float32]
    ) -> None:
        self._found = found
        self._masks: BoolMap = found.logits > 0
        height, width = self._masks.shape[1:]
        cell = np.clip(np.floor(xy).astype(int), 0, (width - 1, height - 1))
        held = self._masks[:, cell[:, 1], cell[:, 0]]  # [masks, points]
        self._wanted: BoolMap = held[:, labels == POSITIVE]
        self._unwanted: BoolMap = held[:, labels == NEGATIVE]
        corners = [xy[labels == corner] for corner in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)]
        self.boxed = all(len(corner) for corner in corners)
        self._box = np.concatenate([corner[:1] for corner in corners]).ravel()

    def chosen(self) -> list[int]:
        """Indices for the single answer and the three candidates, which may be fewer."""
        fits: BoolMap = np.asarray(self._wanted.all(1) & ~self._unwanted.any(1))
        if self.boxed:
            ious = self._box_ious()
            ious[~fits & fits.any()] = -1
            order = np.argsort(-ious, kind="stable")
            best = [int(i) for i in order if ious[i] > 0][: _ANSWERS - 1]
        else:
            order = np.argsort(-self._found.scores, kind="stable")
            best = [int(i) for i in order if fits[i]][: _ANSWERS - 1]
        return [*best[:1], *best]

    def union(self, outside: float) -> tuple[FloatMap, float]:
        """Logits [h, w] and score of FastSAM's answer to points: largest masks first.

        A mask with a positive point is added, one with a negative point is taken away again.
        """
        height, width = self._masks.shape[1:]
        union = np.full((height, width), outside, np.float32)
        score = 0.0
        for mask, logits, own, wanted, unwanted in zip(
            self._masks,
            self._found.logits,
            self._found.scores,
            np.asarray(self._wanted.any(1)),
            np.asarray(self._unwanted.any(1)),
            strict=True,
        ):
            if wanted:
                union = np.maximum(union, logits)
                score = max(score, float(own))
            if unwanted:
                union[mask] = outside
        return union, score if (union > 0).any() else 0.0

    def _box_ious(self) -> npt.NDArray[np.float64]:
        """IoU of every mask with the area of the box, in cells."""
        height, width = self._masks.shape[1:]
        x0, y0, x1, y1 = np.clip(np.rint(self._box), 0, (width, height) * 2).astype(int)
        inside = self._masks[:, y0:y1, x0:x1].sum((1, 2))
        union = (x1 - x0) * (y1 - y0) + self._masks.sum((1, 2)) - inside
        return np.asarray(inside / np.maximum(union, 1), np.float64)
