"""What happens to a live frame: it is carried and shown; its keyframe comes when it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.config import PipelineConfig
from pipeline.errors import PromptError
from pipeline.keyframes import KeyframeBudget
from pipeline.live.commands import Asked, Outcome
from pipeline.live.late import Job, LateKeyframes, Moment
from pipeline.processor import DEFAULT_STEP_S, FrameProcessor, as_it_is, in_turn
from pipeline.prompts import NO_PROMPTS
from pipeline.recognition import Recognizer
from pipeline.refining import Tracked
from pipeline.seeding import Seeder
from pipeline.segmenter.model import Segmenter
from pipeline.segmenter.open import open_segmenter
from pipeline.types import Frame, SizeHW
from trackers.track import Track
from trackers.tracker import Tracker

_SAME_FRAME_S = 0.001  # a stamp in JSON may have lost its last digits
_LONGEST_STEP_S = 1.0  # between timestamps; more is a jump of the source's clock


class LiveControl(Protocol):
    """Who steers a live processor."""

    def budget(self) -> KeyframeBudget:
        """What keyframes may cost now."""
        ...

    def take_commands(self) -> Sequence[Asked]:
        """The commands that came since the last call."""
        ...


class LiveProcessor(FrameProcessor):
    """A `FrameProcessor` whose keyframes are late, cost what `control` says, and obey commands.

    `_tracker` of the base belongs to the keyframes; what is shown is carried by another one. Held
    beside: the last frames, for commands that name one, each with its motion and its tracks.
    """

    def __init__(
        self, config: PipelineConfig, model: Path, frame_hw: SizeHW, control: LiveControl
    ) -> None:
        super().__init__(config, model, frame_hw, NO_PROMPTS)
        self._control = control
        self._inputs = {1.0: (self._segmenter, self._recognizer, self._seeder)}
        for share in config.live.input_shares[1:]:
            segmenter = open_segmenter(config, model, frame_hw, input_share=share)
            self._inputs[share] = self._input(segmenter)
        self._carried = Tracker(self._tracker.settings)
        self._late = LateKeyframes(self._tracker, self._work, as_it_is)
        self._moments: deque[Moment] = deque(maxlen=config.live.kept_frames)
        self._asked: list[Asked] = []
        self._fresh = self._wanted = True
        self._since_regular = self._due_cursor = 0
        self._last: Frame | None = None

    def close(self) -> None:
        """End the threads."""
        self._late.close()
        super().close()

    def running(self) -> dict[str, float]:
        """How long each stage at work has been, seconds."""
        told = super().running()
        if "wait" in told:  # in the keyframes' thread, for the encoder
            told["encode"] = told.pop("wait")
        return told

    def _input(self, segmenter: Segmenter) -> tuple[Segmenter, Recognizer, Seeder]:
        """What works on one size of the encoder's input; the memory of objects is shared."""
        recognizer = self._recognizer.at(segmenter.geometry)
        return segmenter, recognizer, Seeder(segmenter, self._config.seeding)

    def _steps(self, frames: Iterable[Frame]) -> Iterator[Tracked]:
        for frame in self._flows.look_ahead(frames):
            moment = self._carry(self._displayed(frame))
            self._late.pass_on(moment)
            job = self._late.finished()
            if job is not None:
                self._late.merge(job, self._carried)
            self._remove(self._hear())
            moment.tracks = [as_it_is(track) for track in self._carried.tracks]
            self._moments.append(moment)
            keyframe = not self._late.busy and self._begin(moment)
            yield Tracked(moment.frame, keyframe, moment.flow, moment.tracks)

    def _carry(self, frame: Frame) -> Moment:
        gap = frame.arrival is not None and frame.arrival.gap_s > 0
        dt_s = self._step_s(frame, gap=gap)
        self._now_s = (self._now_s or 0.0) + dt_s
        with self.times.stage("flow"):
            flow = self._flows.next()
        self.times.seconds["flow"] = self._flows.seconds
        cut = flow is not None and flow.residual > self._config.keyframes.cut_residual
        scene = ("gap" if gap else "cut") if cut else ""
        moment = Moment(frame, None if cut else flow, scene, dt_s, self._now_s)
        with self.times.stage("carry"):
            moment.carry(self._carried)
        self._since_keyframe += 1
        self._since_regular += 1
        self._fresh |= cut
        self._wanted |= cut or gap
        return moment

    def _step_s(self, frame: Frame, *, gap: bool) -> float:
        """Seconds since the frame before.

        A gap counts as one step: what was not seen does not age. Where the timestamps jump, the
        times of arrival count.
        """
        last, self._last = self._last, frame
        if last is None or gap:
            return 0.0 if last is None else DEFAULT_STEP_S
        if frame.pts_s is not None and last.pts_s is not None:
            step_s = frame.pts_s - last.pts_s
            if 0 < step_s <= _LONGEST_STEP_S:
                return step_s
        if frame.arrival is not None and last.arrival is not None:
            return max(0.001, frame.arrival.monotonic_s - last.arrival.monotonic_s)
        return DEFAULT_STEP_S

    def _begin(self, moment: Moment) -> bool:
        """Begin the next keyframe, if one is due; says whether it is this frame's."""
        self._budget = self._control.budget()
        if self._begin_asked(moment):
            return self._late.busy and self._since_keyframe == 0
        if self._wanted or self._since_regular >= self._budget.interval:
            self._start(Job(moment, fresh=self._fresh))
            return True
        moved = self._moved_far()
        if moved:
            self._since_keyframe = 0
            self._begin_job(Job(moment, moved=moved))
        return bool(moved)

    def _moved_far(self) -> frozenset[int]:
        """Ids that want an early keyframe; the fewer regular ones there are, the later it comes."""
        keyframes = self._config.keyframes
        shortest = keyframes.shortest * self._budget.interval / keyframes.interval
        if self._since_keyframe < shortest:
            return frozenset()
        return frozenset(t.id for t in self._carried.moved_far(keyframes.motion)) - {0}

    def _start(self, job: Job) -> None:
        """Begin a regular keyframe."""
        self._since_keyframe, self._since_regular = 0, 0
        self._fresh, self._wanted = False, False
        self._begin_job(job)

    def _begin_job(self, job: Job, later: Sequence[Moment] = ()) -> None:
        self.keyframes += 1
        self._late.begin(job, later)

    def _due_now(self, job: Job) -> list[Track]:
        """The live tracks that a keyframe looks at: as many as it may, all in turn."""
        live = self._tracker.live()
        if job.moved is not None:
            live = [track for track in live if track.id in job.moved]
        due, self._due_cursor = in_turn(live, self._budget.refreshed, self._due_cursor)
        return due

    def _work(self, job: Job) -> None:
        """Do a keyframe, in the thread of the late ones."""
        self._segmenter, self._recognizer, self._seeder = self._inputs[self._budget.input_share]
        self._encoder.segmenter = self._segmenter
        moment = job.moment
        flow = None if job.fresh else moment.flow
        seed = job.only is None and job.moved is None
        due = self._due_now(job)
        refused = ""
        try:
            with self._libraries.limit(limits=1, user_api="blas"):
                self._keyframe(moment.frame, job.events, due, moment.now_s, flow, seed=seed)
        except PromptError as error:
            refused = str(error)
        for asked, event in zip(job.asked, job.events, strict=True):
            asked.answer(Outcome(event.object, refused))

    # What is asked for while the stream goes on.

    def _hear(self) -> list[Asked]:
        """Take in new commands; gives those that take objects away, which act at once."""
        removing = []
        for asked in self._control.take_commands():
            if asked.command.type in ("remove", "reset"):
                removing.append(asked)
                continue
            try:
                asked.command.check_inside(self._frame_hw)
            except PromptError as error:
                asked.answer(Outcome(asked.command.object, str(error)))
            else:
                self._asked.append(asked)
        return removing

    def _remove(self, removing: Sequence[Asked]) -> None:
        for asked in removing:
            object_id = asked.command.object
            if object_id is None:
                self._carried.tracks = []
                self._asked.clear()
                self._late.remove(None)
                self._wanted = True
            else:
                self._carried.remove(object_id)
                self._late.remove([object_id])
            asked.answer(Outcome(object_id))

    def _begin_asked(self, newest: Moment) -> bool:
        """Begin the keyframe that the first waiting command means, with all others that mean it."""
        chosen: Moment | None = None
        together: list[Asked] = []
        for asked in list(self._asked):
            meant = self._meant(asked, newest)
            if isinstance(meant, str):
                self._asked.remove(asked)
                asked.answer(Outcome(asked.command.object, meant))
            elif meant is not None and (chosen is None or meant is chosen):
                chosen = meant
                together.append(asked)
                self._asked.remove(asked)
        if chosen is None:
            return False
        events = [
            a.command.event(chosen.frame.index, a.command.object or self._tracker.take_id())
            for a in together
        ]
        if chosen is newest:
            self._start(Job(chosen, events, together, fresh=self._fresh))
        else:
            later = list(self._moments)[self._moments.index(chosen) + 1 :]
            only = {e.object for e in events}
            self._begin_job(Job(chosen, events, together, only=only), later)
        return True

    def _meant(self, asked: Asked, newest: Moment) -> Moment | str | None:
        """The frame that a command means, None if it has not come; or why there is none."""
        command = asked.command
        if command.pts_s is not None:
            wanted, times = command.pts_s, [m.frame.pts_s for m in self._moments]
        elif command.captured_s is not None:
            arrivals = [m.frame.arrival for m in self._moments]
            wanted, times = command.captured_s, [a.unix_s if a else None for a in arrivals]
        else:
            return newest
        known = [(t, m) for t, m in zip(times, self._moments, strict=True) if t is not None]
        if not known:
            return "the frames of this source have no such times; leave the time out"
        if wanted > known[-1][0] + _SAME_FRAME_S:
            return None
        if wanted < known[0][0] - _SAME_FRAME_S:
            return (
                f"the frame at {wanted:.3f} s is gone; the last {len(known)} frames, from "
                f"{known[0][0]:.3f} s on, are kept (live.kept_frames)"
            )
        return min(known, key=lambda pair: abs(pair[0] - wanted))[1]
