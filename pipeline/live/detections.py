"""Detections in a live run: by its own detector on keyframes, or by commands for past frames."""

from __future__ import annotations

from collections.abc import Sequence

from maskstream.pipeline.detectors.detector import DetectedBox, Detector
from maskstream.pipeline.live.commands import Outcome
from maskstream.pipeline.live.deferred_keyframes import KeyframeJob, ShownFrame
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.track import Track


class LiveDetections:
    """Supplies the detections of keyframe jobs, in their thread; asked elsewhere between jobs only.

    every: least number of frames between two runs of the detector, which runs on keyframes of all
    objects.
    """

    def __init__(self, detector: Detector | None, every: int, frame_hw: SizeHW) -> None:
        self._detector = detector
        self._every = every
        self._frame_hw = frame_hw
        self._last: int | None = None

    def is_due(self, shown: ShownFrame) -> bool:
        """Whether the detector is to run on a frame that becomes a keyframe of all objects."""
        if self._detector is None:
            return False
        return self._last is None or shown.number - self._last >= self._every

    def of(self, job: KeyframeJob) -> Sequence[DetectedBox] | None:
        """Detections of a job's frame: those of its commands, or of the detector if it is due."""
        if job.detecting:
            return [
                box for pending in job.detecting for box in pending.command.detected(self._frame_hw)
            ]
        if self._detector is None or job.only is not None or job.moved is not None:
            return None
        if not self.is_due(job.shown):
            return None
        self._last = job.shown.number
        return self._detector.detect(job.shown.frame)

    def answer(self, job: KeyframeJob, tracks: Sequence[Track]) -> None:
        """Answer the commands; of a past frame, keep what their detections have changed only."""
        if not job.detecting:
            return
        if job.only is not None:
            before = {track.id: track.sightings.hits for track in job.shown.tracks}
            seen = {t.id for t in tracks if t.sightings.hits > before.get(t.id, 0)}
            job.only = {*job.only, *seen}
        for pending in job.detecting:
            pending.answer(Outcome())
