"""Keyframes that never hold up a frame: worked on beside the stream, merged when they are done.

The encoder runs on frame t while t+1, t+2, … are shown with the masks they were carried. When what
it says of t is there, it is carried to the present by the motion kept since t, and shown from then
on. So latency is that of carrying, however slow the model.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from maskstream.pipeline.live.commands import PendingCommand
from maskstream.pipeline.prompts import Event
from maskstream.pipeline.types import Frame
from maskstream.trackers.flow import Flow
from maskstream.trackers.track import Track
from maskstream.trackers.tracker import Tracker

logger = logging.getLogger(__name__)

MAX_PROPAGATED_FRAMES = 90
"""Frames over which a keyframe is carried to the present."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameStep:
    """From the frame before to a frame.

    flow: None on the first frame and after a cut or a gap that nothing survived (`scene`: "cut",
    "gap", else "").
    """

    flow: Flow | None
    scene: str
    dt_s: float

    def propagate(self, tracker: Tracker) -> None:
        """Bring tracks from the frame before to this one."""
        if self.scene:
            tracker.mark_all_lost(keep_confirmed=self.scene == "gap")
        tracker.advance(self.flow, self.dt_s)


@dataclass(slots=True, eq=False)
class ShownFrame:
    """A frame that was shown, with all that is needed to do its keyframe later.

    number: frames shown before it. step: to it. tracks: as they were shown; nobody changes them.
    """

    number: int
    frame: Frame
    step: FrameStep
    now_s: float
    tracks: Sequence[Track] = ()


@dataclass(slots=True, eq=False)
class KeyframeJob:
    """A keyframe under way. commands: the commands it carries out, as `events` of its frame.

    fresh: nothing is known of the frame before. moved: ids that it looks at, for they moved far;
    None for all, and for new objects. only: ids that it decides; None for all. later: what came
    since its frame, at most so many steps; beyond that it is overdue.
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


class DeferredKeyframes:
    """Runs one job at a time in a thread of its own.

    tracker: belongs to the job while one runs. work: does the keyframe of a job on it. copied:
    copies a track, so that it can be changed.
    """

    def __init__(
        self,
        tracker: Tracker,
        work: Callable[[KeyframeJob], None],
        copy_track: Callable[[Track], Track],
    ) -> None:
        self.overdue = 0
        self._tracker = tracker
        self._work = work
        self._copy_track = copy_track
        self._thread = ThreadPoolExecutor(1, "maskstream-keyframes")
        self._running: tuple[KeyframeJob, Future[None]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job runs, or waits to be merged."""
        return self._running is not None

    def begin(self, job: KeyframeJob) -> None:
        """Begin a job; its `later` are the steps since its frame."""
        job.max_later += len(job.later)
        self._tracker.tracks = [self._copy_track(track) for track in job.shown.tracks]
        self._running = job, self._thread.submit(self._run, job)

    def pass_on(self, step: FrameStep) -> None:
        """Tell the running job of the next frame."""
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
        """Objects (None: all) are not wanted any more, whatever the running job says of them."""
        if self._running is not None:
            self._running[0].removed.update(ids or ())
            self._running[0].all_removed |= ids is None

    def finished(self) -> KeyframeJob | None:
        """The job, if it is done by now, its outcome carried to the present; raises its error."""
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
        """Put the outcome of a finished job in the place of what is shown.

        What an overdue one found is lost from sight at once; the next keyframe may recognize it.
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
        """Wait for the running job and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _run(self, job: KeyframeJob) -> None:
        self._work(job)
        self._propagate_to_present(job)

    def _propagate_to_present(self, job: KeyframeJob) -> None:
        while job.later:
            job.later.popleft().propagate(self._tracker)
