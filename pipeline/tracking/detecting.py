"""A detector in a stream: on which frames it runs, and its boxes as prompts of masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import DetectedBox, Detector
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter
from maskstream.pipeline.types import Frame, SizeHW
from maskstream.trackers.detector_matching import LabeledDetection, MatchingSettings
from maskstream.trackers.iou import mask_iou
from maskstream.trackers.track import LOGIT_LIMIT, Detection, FloatMap

_SAME_OBJECT_IOU = 0.7  # of the masks of two detections of one object


class DetectorRuns:
    """Chooses the frames on which a detector runs, which become keyframes, and runs it there.

    It runs on the first frame and then every `every` frames; a file of detections on the frames
    that it has, no closer than that. After a cut it runs at once.
    """

    def __init__(self, detector: Detector, every: int) -> None:
        self._detector = detector
        self._every = every
        self._last: int | None = None

    def is_due(self, position: int, frame: Frame) -> bool:
        """Whether it runs on this frame; frames come in order, by their count from 0."""
        last = self._last
        if not self.knows(frame) or (last is not None and position - last < self._every):
            return False
        self._last = position
        return True

    def knows(self, frame: Frame) -> bool:
        """Whether it can say anything of a frame."""
        return self._detector.frames is None or frame.index in self._detector.frames

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """Run it. Raises `DetectorError`."""
        return self._detector.detect(frame)


def matching_settings(config: PipelineConfig) -> MatchingSettings:
    """What a configuration says of matching detections with tracks."""
    given = config.detector
    return MatchingSettings(
        match_min=given.match_min,
        start_score=given.start_score,
        sure_score=given.sure_score,
        mask_iou_min=config.tracking.association_iou_min,
        reentry_box_iou_min=config.tracking.reentry_box_iou_min,
    )


def masks_of_boxes(
    segmenter: Segmenter,
    features: Features,
    boxes: Sequence[DetectedBox],
    *,
    frame_hw: SizeHW,
    working_hw: SizeHW,
) -> list[LabeledDetection]:
    """Masks of detections (at least one) at the working resolution, decoded from their boxes.

    A detector's own mask, which is coarse, is a mask prompt beside the box, if the model takes
    masks. Detections whose mask is empty are dropped.
    """
    prompts = PromptBatch.boxes(np.array([each.xyxy for each in boxes], np.float32))
    masked = [each.mask is not None for each in boxes]
    if any(masked) and segmenter.card.mask_prompts:
        empty = np.zeros(segmenter.geometry.grid_hw, np.float32)
        masks = [
            empty if m is None else segmenter.geometry.from_size(_resized(m, working_hw))
            for m in (each.mask for each in boxes)
        ]
        given = np.array(masked, np.float32)
        prompts = PromptBatch(prompts.xy, prompts.labels, np.stack(masks)[:, None], given)
    decoded = segmenter.decode(features, prompts)
    scale = np.tile(np.array(working_hw[::-1]) / np.array(frame_hw[::-1]), 2)
    found = []
    for each, low_res, score in zip(boxes, decoded.masks[:, 0], decoded.iou[:, 0], strict=True):
        logits = segmenter.geometry.to_size(low_res, working_hw)
        if (logits > 0).any():
            mask = Detection(np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT), float(score))
            box = np.array(each.xyxy) * scale
            found.append(LabeledDetection(mask, box, each.label, each.score))
    return found


def distinct_masks(
    segmenter: Segmenter, features: Features, boxes: Sequence[DetectedBox], image_hw: SizeHW
) -> list[LabeledDetection]:
    """Masks of detections at the image's size; of one object's only that of the first box."""
    if not boxes:
        return []
    kept: list[LabeledDetection] = []
    for each in masks_of_boxes(segmenter, features, boxes, frame_hw=image_hw, working_hw=image_hw):
        mask = each.mask.logits > 0
        if all(mask_iou(mask, other.mask.logits > 0) < _SAME_OBJECT_IOU for other in kept):
            kept.append(each)
    return kept


def _resized(logits: FloatMap, size_hw: SizeHW) -> FloatMap:
    larger = logits.shape[0] > size_hw[0]
    how = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(logits, size_hw[::-1], interpolation=how), np.float32)
