"""Processing of live frames: each is propagated and shown; keyframes come when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import Detector
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.live.commands import RUN_ENDED, Outcome, PendingCommand
from maskstream.pipeline.live.deferred_keyframes import (
    DeferredKeyframes,
    FrameStep,
    KeyframeJob,
    ShownFrame,
)
from maskstream.pipeline.live.detections import LiveDetections
from maskstream.pipeline.live.encoder_inputs import EncoderInputs
from maskstream.pipeline.live.frame_history import FrameHistory
from maskstream.pipeline.live.keyframe_engine import KeyframeEngine
from maskstream.pipeline.prompts import MAX_OBJECT_ID, Event
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.keyframe_step import (
    EncoderInput,
    KeyframeRequest,
    KeyframeStep,
)
from maskstream.pipeline.tracking.keyframes import KeyframeBudget
from maskstream.pipeline.tracking.prefetch import FlowPrefetcher
from maskstream.pipeline.tracking.refinement import TrackedFrame
from maskstream.pipeline.tracking.result_composer import ResultComposer
from maskstream.pipeline.tracking.steps import DEFAULT_FRAME_INTERVAL_S, round_robin, snapshot
from maskstream.pipeline.types import Frame, FrameResult, SizeHW
from maskstream.trackers.track import Track
from maskstream.trackers.tracker import Tracker

_MAX_WAITING = 64  # commands; each may keep a frame
_NO_MORE = f"no object can be added: all {MAX_OBJECT_ID} numbers have been given; begin a new run"
_LONGEST_STEP_S = 1.0  # between timestamps; more is a jump of the source's clock


class LiveControl(Protocol):
    """Who steers a live processor."""

    def budget(self) -> KeyframeBudget:
        """What keyframes may cost now."""
        ...

    def take_commands(self) -> Sequence[PendingCommand]:
        """The commands that came since the last call."""
        ...

    def end_commands(self) -> None:
        """Refuse the commands that wait, and those that come."""
        ...


@dataclass(slots=True, eq=False)
class _WaitingCommand:
    """A command that waits for a keyframe of the frame it means, once that has come."""

    pending: PendingCommand
    shown: ShownFrame | None = None


class LiveProcessor:
    """State of a live stream: its keyframes are late, cost what `control` says, and obey commands.

    The tracks of the `KeyframeStep` belong to the keyframes; what is shown is propagated by another
    tracker. Held beside: the last frames, for commands that name one, and those that waiting
    commands have named.
    """

    def __init__(
        self,
        config: PipelineConfig,
        model: Path,
        frame_hw: SizeHW,
        control: LiveControl,
        engine: KeyframeEngine,
        *,
        detector: Detector | None = None,
    ) -> None:
        self.times = StageTimes()
        self.keyframes = 0
        self._config = config
        self._control = control
        self._detecting = LiveDetections(detector, config.detector.every, frame_hw)
        self._model = model
        self._frame_hw = frame_hw
        self._engine = engine
        with self.times.stage("load"):
            networks = engine.networks(config, model, frame_hw)
        self._refused: dict[int, str] = {}
        self._keyframe = KeyframeStep(
            config, networks, frame_hw, first_id=1, on_refused=self._note_refusal
        )
        self._tracker = self._keyframe.tracker
        self._inputs = EncoderInputs(self._keyframe.full_input, self._load_input)
        self._flows = FlowPrefetcher(self._keyframe.working_hw)
        self._composer = ResultComposer(frame_hw, lambda index: (), refine=config.refines)
        self._shown_tracker = Tracker(self._tracker.settings)
        self._deferred = DeferredKeyframes(engine, self._tracker, self._work, snapshot)
        self._history = FrameHistory(config.live.history_frames, config.live.stamps)
        self._waiting: list[_WaitingCommand] = []
        self._budget = control.budget()
        self._now_s = 0.0
        self._fresh = self._wanted = True
        self._since_keyframe = self._since_regular = self._due_cursor = self._shown_count = 0
        self._last: Frame | None = None

    def close(self) -> None:
        """End the threads; commands that wait are answered."""
        self._deferred.close()
        self._inputs.close()
        for waiting in list(self._waiting):
            self._refuse(waiting, RUN_ENDED)
        self._control.end_commands()
        self._flows.close()
        self._composer.close()

    def running(self) -> dict[str, float]:
        """How long each stage at work has been, seconds; for any thread."""
        stages = (self.times, self._keyframe.times, self._composer.times)
        return {name: s for times in stages for name, s in times.running().items()}

    def results(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FrameResult]]:
        """Results of frames as they come; each is shown with the masks that are known by then."""
        return self._composer.results(self._steps(frames), ahead=0, times=self.times)

    def _load_input(self, share: float) -> EncoderInput:
        return self._keyframe.input_for(
            self._engine.networks(self._config, self._model, self._frame_hw, share)
        )

    def _steps(self, frames: Iterable[Frame]) -> Iterator[TrackedFrame]:
        for frame in self._flows.prefetch(frames):
            displayed = (
                frame if frame.size_hw == self._frame_hw else replace(frame, size_hw=self._frame_hw)
            )
            shown = self._propagate(displayed)
            self._deferred.pass_on(shown.step)
            job = self._deferred.finished()
            if job is not None:
                self._deferred.merge(job, self._shown_tracker)
            self._take_commands()
            shown.tracks = [snapshot(track) for track in self._shown_tracker.tracks]
            self._history.add(shown, [w.shown for w in self._waiting if w.shown is not None])
            self._resolve_waiting()
            keyframe = not self._deferred.busy and self._begin(shown)
            self.times.seconds |= dict(self._keyframe.times.seconds)
            yield TrackedFrame(shown.frame, keyframe, shown.step.flow, shown.tracks)

    def _propagate(self, frame: Frame) -> ShownFrame:
        gap = frame.arrival is not None and frame.arrival.gap_s > 0
        dt_s = _step_s(self._last, frame, gap=gap)
        self._last = frame
        self._now_s += dt_s
        with self.times.stage("flow"):
            flow = self._flows.next()
        self.times.seconds["flow"] = self._flows.seconds
        cut = flow is not None and flow.residual > self._config.keyframes.cut_residual
        scene = ("gap" if gap else "cut") if cut else ""
        step = FrameStep(None if cut else flow, scene, dt_s)
        shown = ShownFrame(self._shown_count, frame, step, self._now_s)
        self._shown_count += 1
        with self.times.stage("propagate"):
            step.propagate(self._shown_tracker)
        self._since_keyframe += 1
        self._since_regular += 1
        self._fresh |= cut
        self._wanted |= cut or gap
        return shown

    def _begin(self, shown: ShownFrame) -> bool:
        """Begin the next keyframe, if one is due; says whether it is this frame's."""
        self._budget = self._control.budget()
        commanded = any(waiting.shown is not None for waiting in self._waiting)
        due = (
            self._wanted
            or self._since_regular >= self._budget.interval
            or self._is_detection_due(shown)
        )
        moved = frozenset() if commanded or due else self._moved_ids()
        if not (commanded or due or moved) or not self._deferred.may_begin:
            return False
        if self._begin_commanded(shown):
            return self._deferred.busy and self._since_keyframe == 0
        if due:
            self._start(KeyframeJob(shown, fresh=self._fresh))
        elif moved:
            self._since_keyframe = 0
            self._begin_job(KeyframeJob(shown, moved=moved))
        return due or bool(moved)

    def _is_detection_due(self, shown: ShownFrame) -> bool:
        """Whether the detector asks for a keyframe, and no keyframes have to be saved."""
        relaxed = self._budget.interval <= self._config.keyframes.interval
        return relaxed and self._detecting.is_due(shown)

    def _moved_ids(self) -> frozenset[int]:
        """Ids that want an early keyframe; the fewer regular ones there are, the later it comes."""
        keyframes = self._config.keyframes
        interval_min = keyframes.interval_min * self._budget.interval / keyframes.interval
        if self._since_keyframe < interval_min:
            return frozenset()
        return frozenset(t.id for t in self._shown_tracker.moved_far(keyframes.motion_max)) - {0}

    def _start(self, job: KeyframeJob) -> None:
        """Begin a regular keyframe."""
        self._since_keyframe, self._since_regular = 0, 0
        self._fresh, self._wanted = False, False
        self._begin_job(job)

    def _begin_job(self, job: KeyframeJob) -> None:
        self.keyframes += 1
        self._deferred.begin(job)

    def _due_now(self, job: KeyframeJob) -> list[Track]:
        """The live tracks that a keyframe looks at: as many as it may, all in turn."""
        live = self._tracker.live()
        if job.moved is not None:
            live = [track for track in live if track.id in job.moved]
        due, self._due_cursor = round_robin(
            live, self._budget.tracks_per_keyframe, self._due_cursor
        )
        return due

    def _work(self, job: KeyframeJob) -> None:
        """Do a keyframe, in the thread of the late ones."""
        encoder_input = self._inputs.at(self._budget.input_share)
        shown = job.shown
        with self._keyframe.times.stage("encode"):
            features = encoder_input.networks.encode(shown.frame)
        self._refused.clear()
        with self._keyframe.times.stage("detect"):
            detections = self._detecting.of(job)
        self._keyframe.run(
            KeyframeRequest(
                features,
                self._due_now(job),
                job.events,
                shown.now_s,
                None if job.fresh else shown.step.flow,
                seed=job.only is None and job.moved is None,
                prompts=self._budget.prompts,
                detections=detections,
            ),
            encoder_input,
        )
        self._detecting.answer(job, self._tracker.tracks)
        for pending, event in zip(job.commands, job.events, strict=True):
            refused = self._refused.get(event.object, "")
            pending.answer(Outcome(pending.command.object if refused else event.object, refused))

    def _note_refusal(self, object_id: int, error: PromptError) -> None:
        """One object's prompt may be refused; the others are applied."""
        self._refused[object_id] = str(error)

    # What is asked for while the stream goes on.

    def _take_commands(self) -> None:
        """Take in new commands; those that take objects away act at once."""
        for pending in self._control.take_commands():
            if pending.command.type in ("remove", "reset"):
                self._remove(pending)
                continue
            try:
                pending.command.check_inside(self._frame_hw)
                if len(self._waiting) >= _MAX_WAITING:
                    raise PromptError(f"{_MAX_WAITING} commands wait already; ask again")
            except PromptError as error:
                pending.answer(Outcome(pending.command.object, str(error)))
            else:
                self._waiting.append(_WaitingCommand(pending))

    def _remove(self, removing: PendingCommand) -> None:
        object_id = removing.command.object
        if object_id is None:
            self._shown_tracker.tracks = []
            self._deferred.remove(None)
            self._wanted = True
        else:
            self._shown_tracker.remove(object_id)
            self._deferred.remove([object_id])
        for waiting in list(self._waiting):
            if object_id in (None, waiting.pending.command.object):
                self._refuse(waiting, f"a {removing.command.type} came after it")
        removing.answer(Outcome(object_id))

    def _refuse(self, waiting: _WaitingCommand, why: str) -> None:
        self._waiting.remove(waiting)
        waiting.pending.answer(Outcome(waiting.pending.command.object, why))

    def _resolve_waiting(self) -> None:
        """Find the frames that waiting commands mean; those that come later are found then."""
        for waiting in list(self._waiting):
            if waiting.shown is None:
                try:
                    waiting.shown = self._history.resolve(waiting.pending.command)
                except PromptError as error:
                    self._refuse(waiting, str(error))

    def _begin_commanded(self, newest: ShownFrame) -> bool:
        """Begin the keyframe that the first waiting command means, with all others that mean it."""
        chosen = next((w.shown for w in self._waiting if w.shown is not None), None)
        events: list[Event] = []
        together: list[PendingCommand] = []
        detecting: list[PendingCommand] = []
        if chosen is None:
            return False
        for waiting in [w for w in self._waiting if w.shown is chosen]:
            command = waiting.pending.command
            if command.detections is not None:
                self._waiting.remove(waiting)
                detecting.append(waiting.pending)
                continue
            if command.object is None and self._tracker.full:
                self._refuse(waiting, _NO_MORE)
                continue
            self._waiting.remove(waiting)
            together.append(waiting.pending)
            object_id = command.object or self._tracker.new_id()
            events.append(command.event(chosen.frame.index, object_id))
        if not events and not detecting:
            return False
        job = KeyframeJob(chosen, events, together, detecting=detecting)
        if chosen is newest:
            job.fresh = self._fresh
            self._start(job)
            return True
        job.only = {e.object for e in events}
        later = self._history.since(chosen)
        job.later.extend(later or ())
        job.overdue = later is None
        self._begin_job(job)
        return True


def _step_s(last: Frame | None, frame: Frame, *, gap: bool) -> float:
    """Seconds from the previous frame to this one.

    A gap counts as one step: what was not seen does not age. Where the timestamps jump, the times
    of arrival count.
    """
    if last is None or gap:
        return 0.0 if last is None else DEFAULT_FRAME_INTERVAL_S
    if frame.pts_s is not None and last.pts_s is not None:
        step_s = frame.pts_s - last.pts_s
        if 0 < step_s <= _LONGEST_STEP_S:
            return step_s
    if frame.arrival is not None and last.arrival is not None:
        return max(0.001, frame.arrival.monotonic_s - last.arrival.monotonic_s)
    return DEFAULT_FRAME_INTERVAL_S
