"""Scene cuts of a video, found as a run finds them, without tracking anything."""

from __future__ import annotations

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.tracking.steps import working_size
from maskstream.pipeline.types import Frame, GrayImage, SizeHW
from maskstream.trackers.flow import FlowEstimator, still_residual


class CutDetector:
    """Tells of successive frames which begin a new scene (`keyframes.cut_residual`).

    Motion is estimated only between frames that differ enough, so that a frame costs little more
    than its luma. It finds no cut that a run does not find.
    """

    def __init__(self, config: PipelineConfig, frame_hw: SizeHW) -> None:
        self._residual_max = config.keyframes.cut_residual
        self._working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        self._estimator = FlowEstimator()
        self._previous: GrayImage | None = None

    def is_cut(self, frame: Frame) -> bool:
        """Whether the next frame begins a new scene; False for the first one."""
        gray = frame.gray(self._working_hw)
        previous, self._previous = self._previous, gray
        if previous is None or still_residual(previous, gray) <= self._residual_max:
            return False
        return self._estimator.between(previous, gray).residual > self._residual_max
