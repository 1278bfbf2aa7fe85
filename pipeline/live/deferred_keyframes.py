"""Deferred keyframes: computed beside the stream, merged into it when they are done.

The encoder runs on frame t while t+1, t+2, … are shown with propagated masks. When the masks of t
are decoded, they are propagated to the present by the flows kept since t, and shown from then on.
So latency is that of propagation, however slow the model.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from maskstream.pipeline.live.commands import RUN_ENDED, Outcome, PendingCommand
from maskstream.pipeline.live.keyframe_engine import KeyframeEngine
from maskstream.pipeline.prompts import Event
from maskstream.pipeline.types import Frame
from maskstream.trackers.flow import Flow
from maskstream.trackers.track import Track
from maskstream.trackers.tracker import Tracker

logger = logging.getLogger(__name__)

MAX_PROPAGATED_FRAMES = 90
"""The most frames over which a keyframe's masks are propagated to the present."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameStep:
    """Motion from one frame to the next.

    flow: None on the first frame and after a cut or a gap. scene: "cut", "gap", else "". dt_s:
    seconds between the frames.
    """

    flow: Flow | None
    scene: str
    dt_s: float

    def propagate(self, tracker: Tracker) -> None:
        """Propagate a tracker's tracks from the previous frame to this one."""
        if self.scene:
            tracker.mark_all_lost(keep_confirmed=self.scene == "gap")
        tracker.advance(self.flow, self.dt_s)


@dataclass(slots=True, eq=False)
class ShownFrame:
    """A frame that was shown, with the state needed to compute its keyframe later.

    number: count of frames shown before it. step: motion from the previous frame. tracks: as they
    were shown; never modified.
    """

    number: int
    frame: Frame
    step: FrameStep
    now_s: float
    tracks: Sequence[Track] = ()


@dataclass(slots=True, eq=False)
class KeyframeJob:
    """A keyframe being computed.

    commands: the commands it executes, also given as `events` of its frame. fresh: nothing is known
    of the previous frame. moved: ids of the objects to decode because they moved far; None: all
    objects, and seeding of new ones. only: ids whose masks it updates; None: all. later: the steps
    since its frame, at most `max_later`; with more, the keyframe is overdue. detecting: commands
    whose detections are matched on the frame.
    """

    shown: ShownFrame
    events: Sequence[Event] = ()
    commands: Sequence[PendingCommand] = ()
    fresh: bool = False
    moved: Collection[int] | None = None
    only: Collection[int] | None = None
    later: deque[FrameStep] = field(default_factory=deque)
    max_later: int = MAX_PROPAGATED_FRAMES
    removed: set[int] = field(default_factory=set)
    all_removed: bool = False
    overdue: bool = False
    detecting: Sequence[PendingCommand] = ()


class DeferredKeyframes:
    """Runs keyframe jobs in the engine's thread, one at a time.

    tracker: used by the job while one runs. work: computes a job's keyframe on it. copy_track:
    makes a copy of a track that can be modified.
    """

    def __init__(
        self,
        engine: KeyframeEngine,
        tracker: Tracker,
        work: Callable[[KeyframeJob], None],
        copy_track: Callable[[Track], Track],
    ) -> None:
        self.overdue = 0
        self._tracker = tracker
        self._work = work
        self._copy_track = copy_track
        self._engine = engine
        self._running: tuple[KeyframeJob, Future[None]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running, or waiting to be merged."""
        return self._running is not None

    @property
    def may_begin(self) -> bool:
        """Whether a job that is due can be started now; with several cameras they take turns."""
        return not self.busy and self._engine.is_turn(self)

    def begin(self, job: KeyframeJob) -> None:
        """Start a job; its `later` holds the steps since its frame."""
        job.max_later += len(job.later)
        self._tracker.tracks = [self._copy_track(track) for track in job.shown.tracks]
        self._running = job, self._engine.submit(self, lambda: self._run(job))

    def pass_on(self, step: FrameStep) -> None:
        """Append the step to the next frame to the running job."""
        if self._running is None:
            return
        job = self._running[0]
        if job.overdue:
            return
        if len(job.later) < job.max_later:
            job.later.append(step)
        else:
            job.overdue = True
            self.overdue += 1
            logger.warning("a keyframe took longer than %d frames", MAX_PROPAGATED_FRAMES)

    def remove(self, ids: Collection[int] | None) -> None:
        """Drop these objects (None: all) from the result of the running job."""
        if self._running is not None:
            self._running[0].removed.update(ids or ())
            self._running[0].all_removed |= ids is None

    def finished(self) -> KeyframeJob | None:
        """The job if it is done, its tracks propagated to the present. Raises the job's error."""
        if self._running is None or not self._running[1].done():
            return None
        job, outcome = self._running
        self._running = None
        outcome.result()
        if job.overdue:
            self._tracker.mark_all_lost(keep_confirmed=True)
        else:
            self._propagate_to_present(job)
        return job

    def merge(self, job: KeyframeJob, shown: Tracker) -> None:
        """Replace the shown tracks by those of a finished job.

        New objects of an overdue job are LOST at once; the next keyframe may recognize them.
        """
        if job.all_removed:
            return
        outcome = [self._copy_track(t) for t in self._tracker.tracks if t.id not in job.removed]
        if job.overdue:
            known = {t.id for t in shown.tracks}
            outcome = [*shown.tracks, *(t for t in outcome if t.id not in known)]
        elif job.only is not None:
            kept = [t for t in shown.tracks if t.id not in job.only]
            outcome = kept + [t for t in outcome if t.id in job.only]
        shown.tracks = outcome

    def close(self) -> None:
        """Wait for the running job; one that waits for other cameras is canceled."""
        if self._running is None:
            return
        job, outcome = self._running
        if outcome.cancel():
            for pending in (*job.commands, *job.detecting):
                pending.answer(Outcome(pending.command.object, RUN_ENDED))
        else:
            wait([outcome])

    def _run(self, job: KeyframeJob) -> None:
        self._work(job)
        self._propagate_to_present(job)

    def _propagate_to_present(self, job: KeyframeJob) -> None:
        while job.later:
            job.later.popleft().propagate(self._tracker)
