"""Baseline of detectors: boxes alone, joined by motion and IoU.

SORT (Bewley et al., ICIP 2016, arXiv 1602.00763) with ByteTrack's second stage for low scores
(arXiv 2110.06864), on this project's Kalman filter and assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.trackers.assignment import assign_two_stage
from maskstream.trackers.iou import box_iou
from maskstream.trackers.motion import KalmanBox, Vector

_IOU_MIN = 0.3
_HIGH_SCORE = 0.6
_CONFIRM_HITS = 2
_LOST_AFTER = 30  # frames without a detection


@dataclass(slots=True)
class _BoxTrack:
    motion: KalmanBox
    id: int = 0
    hits: int = 1
    misses: int = 0


@dataclass(slots=True)
class BoxTracker:
    """Tracks boxes; a track is shown on frames that detect it, and `coast` frames after.

    An object is shown from its second detection on, or its first if its score is high.
    """

    coast: int = 0
    _tracks: list[_BoxTrack] = field(default_factory=list)
    _count: int = 0

    def step(self, detections: Sequence[DetectedBox] | None, dt_s: float) -> dict[int, Vector]:
        """Boxes xyxy by id on the next frame; None: the detector did not run."""
        for track in self._tracks:
            track.motion.predict(dt_s)
        if detections is None:
            for track in self._tracks:
                track.misses += 1
        else:
            self._match(detections)
        self._tracks = [t for t in self._tracks if t.misses <= (_LOST_AFTER if t.id else 1)]
        shown = [t for t in self._tracks if t.id and t.misses <= self.coast]
        return {t.id: t.motion.box_xyxy for t in shown}

    def _match(self, detections: Sequence[DetectedBox]) -> None:
        boxes = np.array([d.xyxy for d in detections], np.float64).reshape(-1, 4)
        scores = np.array([d.score for d in detections])
        expected = np.array([t.motion.box_xyxy for t in self._tracks]).reshape(-1, 4)
        sure = scores >= _HIGH_SCORE
        matched = assign_two_stage(1 - box_iou(expected, boxes), 1 - _IOU_MIN, sure)
        for row, column in matched.pairs:
            track = self._tracks[row]
            track.motion.update(boxes[column])
            track.hits, track.misses = track.hits + 1, 0
        for row in matched.unmatched_tracks:
            self._tracks[row].misses += 1
        for column in matched.unmatched_detections:
            self._tracks.append(_BoxTrack(KalmanBox.start(boxes[column])))
            self._tracks[-1].hits = _CONFIRM_HITS if sure[column] else 1
        for track in self._tracks:
            if not track.id and track.hits >= _CONFIRM_HITS:
                self._count += 1
                track.id = self._count
