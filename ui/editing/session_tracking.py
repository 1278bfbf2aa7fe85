"""Tracking of a session: its jobs, one at a time, and what a killed one left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from maskstream.pipeline.errors import MaskstreamError, PromptError, StoreCorruptError, StoreError
from maskstream.pipeline.prompts import Quality
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.types import FrameResult
from maskstream.ui.editing.entries import TrackedEntry
from maskstream.ui.editing.jobs import JobPlan, Outcome, recovered
from maskstream.ui.editing.session import Session, SessionState
from maskstream.ui.editing.session_models import SessionModels
from maskstream.ui.editing.slots import JobSlots
from maskstream.ui.editing.track_cost import frame_ms
from maskstream.ui.editing.track_plan import (
    Direction,
    PendingSegment,
    done_after,
    plan_job,
    stale_segments,
)
from maskstream.ui.editing.tracking_task import TrackingTask

_STOP_S = 30.0


class SessionTracking:
    """Starts and ends the tracking jobs of a session; may be called by any thread.

    task: the running job, or the last one. lock: of the session. on_change: called after what the
    page shows has changed.
    """

    def __init__(
        self,
        session: Session,
        video: Seekable,
        models: SessionModels,
        slots: JobSlots,
        lock: threading.RLock,
        on_change: Callable[[], None],
    ) -> None:
        self.task: TrackingTask | None = None
        self._session = session
        self._video = video
        self._models = models
        self._slots = slots
        self._lock = lock
        self._on_change = on_change
        with suppress(StoreError):  # tried again before the next job
            self._recover()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self.task is not None and self.task.active

    def close(self) -> None:
        """Stop tracking and keep finished frames."""
        task = self.task
        if task is not None and task.active:
            task.stop()
            task.wait(_STOP_S)

    def live(self, index: int) -> FrameResult | None:
        """Result of the running job for a frame."""
        return self.task.live(index) if self.task is not None and self.task.active else None

    def start(self, direction: Direction, quality: Quality | None) -> None:
        """Start tracking the stale segments. Raises `PromptError` if it cannot start."""
        with self._lock:
            if self.busy:
                raise PromptError("Tracking is running already.")
            self._recover()
            session = self._session
            state = session.tracked_state
            stale = stale_segments(state, self._video.numbers, direction)
            if not stale:
                raise PromptError(_nothing_stale(state))
            config = self._models.config
            plan = JobPlan(
                session.folder,
                plan_job(state, stale, quality),
                tuple(stale),
                session.new_store(),
                state.store,
            )
            task = TrackingTask(
                plan, config, self._video, self._slots, session.masks, self._add_tracked
            )
            task.start()
            self.task = task
            self._on_change()

    def seconds(self, stale: Sequence[PendingSegment]) -> dict[str, float]:
        """Estimated seconds of tracking by quality ("": as configured); empty before a click."""
        segmenter = self._models.clicker.loaded() if self._models.is_chosen_offered else None
        if segmenter is None or not stale:
            return {}
        frames = plan_job(self._session.tracked_state, stale).passes
        count = sum(len(task.frames) for task in frames)
        objects = len({pending.object for pending in stale})
        info = self._video.info
        fps = float(info.rate or 25)
        each = frame_ms(self._models.config, segmenter, info.size_hw, objects, fps)
        return {quality or "": count * ms / 1000 for quality, ms in each.items()}

    def _add_tracked(self, plan: JobPlan, outcome: Outcome) -> None:
        with self._lock:
            state = self._session.tracked_state
            done = done_after(state, outcome.touched, outcome.done)
            entry = TrackedEntry(store=plan.store, job=outcome.job, onto=plan.onto, done=done)
            try:
                self._session.add(entry)
                self._session.drop_old_stores()
            finally:  # it holds in memory, if it cannot be saved
                self._on_change()

    def _recover(self) -> None:
        """Add the frames of a job that was killed, or found the disk full. Raises `StoreError`."""
        plan = JobPlan.left_in(self._session.folder)
        if plan is None:
            return
        try:
            config, info = self._models.config, self._video.info
            outcome = recovered(plan, config, info, self._session.masks)
            if outcome is not None:
                self._add_tracked(plan, outcome)
        except StoreCorruptError:
            pass  # earlier tracking is kept; the frames of this job are lost
        except StoreError:
            raise
        except MaskstreamError:
            pass  # as above
        plan.forget()


def _nothing_stale(state: SessionState) -> str:
    """The message for a session without stale segments."""
    if not any(known.anchors for known in state.objects.values()):
        return "Click on an object first."
    return "Everything is tracked; click where a mask is wrong to correct it."
