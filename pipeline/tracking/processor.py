"""What happens to the frames of a file: flow, tracks, and on keyframes the segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import Detector
from maskstream.pipeline.models.networks import Networks, open_networks
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.detecting import DetectorRuns
from maskstream.pipeline.tracking.keyframe_step import KeyframeRequest, KeyframeStep
from maskstream.pipeline.tracking.keyframes import KeyframeEncoder
from maskstream.pipeline.tracking.prefetch import FlowPrefetcher
from maskstream.pipeline.tracking.refinement import TrackedFrame
from maskstream.pipeline.tracking.result_composer import ResultComposer
from maskstream.pipeline.tracking.schedule import NOTICE, schedule_for
from maskstream.pipeline.tracking.steps import DEFAULT_FRAME_INTERVAL_S, snapshot
from maskstream.pipeline.types import Frame, FrameResult, SizeHW
from maskstream.trackers.track import Track

_COMPOSE_LAG = 2  # frames that are tracked while the label map of one is composed (files)


class FrameProcessor:
    """State of one file's stream between its frames.

    Everything it holds is bounded: one frame's luma, the frames it looks ahead, the features of the
    keyframes among them, the live tracks; if it refines, also the frames that wait for a keyframe.
    """

    def __init__(
        self,
        config: PipelineConfig,
        model: Path,
        frame_hw: SizeHW,
        prompts: PromptLog,
        extra_tracks: Callable[[int], Sequence[Track]] = lambda index: (),
        networks: Networks | None = None,
        detector: Detector | None = None,
    ) -> None:
        """extra_tracks: of a frame, by its number; they are shown beside those followed here.

        networks: for frames of this size, used by nobody else; None: they are loaded. detector: its
        boxes are prompts on keyframes.
        """
        self.times = StageTimes()
        self.keyframes = 0
        self._config = config
        self._prompts = prompts
        self._frame_hw = frame_hw
        with self.times.stage("load"):
            self._networks = networks or open_networks(config, model, frame_hw)
        first_id = prompts.last_object + 1
        self._keyframe = KeyframeStep(config, self._networks, frame_hw, first_id=first_id)
        self._tracker = self._keyframe.tracker
        runs = None if detector is None else DetectorRuns(detector, config.detector.every)
        self._encoder = KeyframeEncoder(self._networks, config.keyframes.interval, runs)
        self._schedule = schedule_for(config, self._networks)
        self._flows = FlowPrefetcher(self._keyframe.working_hw)
        self._composer = ResultComposer(frame_hw, extra_tracks, refine=config.refines)
        waits = config.queue.policy == "wait"  # live frames do not
        self._ahead = config.keyframes.lookahead if waits else 0
        self._compose_lag = _COMPOSE_LAG if waits else 0
        self._now_s: float | None = None
        self._since_keyframe = 0

    def close(self) -> None:
        """End the threads."""
        self._flows.close()
        self._encoder.close()
        self._composer.close()

    def running(self) -> dict[str, float]:
        """How long each stage at work has been, seconds; for any thread."""
        stages = (self.times, self._keyframe.times, self._composer.times)
        return {name: s for times in stages for name, s in times.running().items()}

    @property
    def networks(self) -> Networks:
        """The networks, for somebody else's use once this is closed."""
        return self._networks

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks as they are on the frame whose result came last."""
        return self._composer.tracks

    def results(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FrameResult]]:
        """Process frames in order.

        While one is tracked, regular keyframes among the next are encoded, their flow is estimated,
        and the label maps of those before are composed.
        """
        ahead = self._encoder.prefetch(self._flows.prefetch(frames), self._ahead)
        tracked = (self._step(frame) for frame in ahead)
        return self._composer.results(tracked, ahead=self._compose_lag, times=self.times)

    def _step(self, frame: Frame) -> TrackedFrame:
        if frame.size_hw != self._frame_hw:
            frame = replace(frame, size_hw=self._frame_hw)
        first = self._now_s is None
        dt_s = self._clock(frame)
        with self.times.stage("wait"):
            flow = self._flows.next()
        self.times.seconds["flow"] = self._flows.seconds
        with self.times.stage("propagate"):
            cut = flow is not None and flow.residual > self._config.keyframes.cut_residual
            if cut:
                self._tracker.mark_all_lost()
            self._tracker.advance(None if cut else flow, dt_s)
        events = self._prompts.at(frame.index)
        self._since_keyframe += 1
        regular, planned = self._encoder.is_regular(frame), self._encoder.is_planned(frame)
        fresh = first or cut
        due = self._due_tracks(everything=fresh or planned or bool(events))
        keyframe = fresh or planned or bool(events or due)
        if self._schedule is not None:
            self._schedule.earn(dt_s, len(self._tracker.live()))
            if keyframe and (regular or not planned):
                self._schedule.pay(len(due))
        if keyframe:
            self._since_keyframe = 0
            self.keyframes += 1
            with self.times.stage("wait"):
                features = self._encoder.encode(frame, fresh=fresh)
            self.times.seconds["encode"] = self._encoder.seconds
            if self._encoder.detecting_s:
                self.times.seconds["detect"] = self._encoder.detecting_s
            self._keyframe.run(
                KeyframeRequest(
                    features,
                    due,
                    events,
                    self._now_s or 0.0,
                    None if fresh else flow,
                    seed=fresh or regular,
                    prompts=self._config.seeding.prompts_per_keyframe,
                    detections=features.detections,
                )
            )
            self.times.seconds |= dict(self._keyframe.times.seconds)
        self._plan()
        tracks = [snapshot(track) for track in self._tracker.tracks]
        return TrackedFrame(frame, keyframe, None if cut else flow, tracks)

    def _due_tracks(self, *, everything: bool) -> list[Track]:
        """Tracks that a keyframe now is to look at: all, or those that moved far since the last."""
        if everything:
            return self._tracker.live()
        if self._since_keyframe < self._config.keyframes.interval_min:
            return []
        return self._tracker.moved_far(self._config.keyframes.motion_max)

    def _plan(self) -> None:
        """Make a frame soon to come a keyframe if objects will need it and the budget has it."""
        schedule, encoder = self._schedule, self._encoder
        if schedule is None or encoder.is_keyframe(NOTICE):
            return
        looked_at = encoder.is_keyframe(NOTICE - 1)
        count = len(self._tracker.live())
        if schedule.buys(self._tracker.need(NOTICE, looked_at=looked_at), count):
            schedule.pay(count)
            encoder.plan(NOTICE)

    def _clock(self, frame: Frame) -> float:
        """Advance the stream's clock to a frame; seconds since the one before."""
        before = self._now_s
        given = frame.pts_s
        if before is None:
            self._now_s = given or 0.0
            return 0.0
        self._now_s = (
            given if given is not None and given > before else before + DEFAULT_FRAME_INTERVAL_S
        )
        return self._now_s - before
