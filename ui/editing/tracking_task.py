"""A tracking job in its own thread: progress, live preview, pause and stop."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import MaskstreamError, StoreError
from maskstream.pipeline.prompts import EventRef, TrackPass
from maskstream.pipeline.runs.joining import pass_store
from maskstream.pipeline.runs.retrack import TrackingStopped, for_job, run_job
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import FrameResult
from maskstream.ui.editing.jobs import JobPlan, Outcome, outcome_of
from maskstream.ui.editing.mask_files import MaskFiles
from maskstream.ui.editing.slots import JobSlots

logger = logging.getLogger(__name__)

LIVE_KEPT = 512  # compressed results of the running job in memory; older ones are in its stores
_SPEED_OVER = 24  # frames


class JobStatus(StrEnum):
    """Status of a tracking job."""

    WAITING = "waiting"  # for another session's job on this server
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    JOINING = "joining"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = (JobStatus.DONE, JobStatus.STOPPED, JobStatus.FAILED)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Progress of a tracking job. frame: last frame done, -1 before. running: current pass.

    done, total: frames of all passes. fps: current speed, 0 if unknown; left_s: estimated time
    left.
    """

    status: JobStatus
    message: str
    frame: int
    running: TrackPass[EventRef] | None
    done: int
    total: int
    fps: float
    left_s: float | None


class TrackingTask:
    """One tracking job. finished: called in its thread with its outcome, if it tracked anything.

    slots: of the jobs of this server. Raises `ServerFullError` if no place in line is left.
    """

    def __init__(
        self,
        plan: JobPlan,
        config: PipelineConfig,
        video: Seekable,
        slots: JobSlots,
        masks: MaskFiles,
        finished: Callable[[JobPlan, Outcome], None],
    ) -> None:
        self.plan = plan
        self.status = JobStatus.WAITING
        self.message = ""
        self.frame = -1
        self._pass = -1
        self.done_frames = 0
        self._config = config
        self._video = video
        self._slots = slots
        self._ticket = slots.enter()
        self._masks = masks
        self._finished = finished
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._times: deque[float] = deque(maxlen=_SPEED_OVER)
        self._live: OrderedDict[int, tuple[FrameResult, bytes]] = OrderedDict()
        self._live_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="maskstream-tracking", daemon=True)

    def start(self) -> None:
        """Start the job."""
        self.plan.save()
        self._thread.start()

    def pause(self) -> None:
        """Pause after the next frame."""
        if self.status is JobStatus.RUNNING:
            self._go.clear()
            self.status = JobStatus.PAUSED

    def resume(self) -> None:
        """Continue after a pause."""
        if self.status is JobStatus.PAUSED:
            self._times.clear()
            self.status = JobStatus.RUNNING
            self._go.set()

    def stop(self) -> None:
        """Stop after the next frame; finished frames are kept."""
        self._stop.set()
        self._slots.notice()
        if self.status in (JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.WAITING):
            self.status = JobStatus.STOPPING
        self._go.set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the job has ended."""
        self._thread.join(timeout_s)

    @property
    def active(self) -> bool:
        """Whether the job has not ended."""
        return self.status not in ENDED

    @property
    def fps(self) -> float:
        """Frames per second over the last few frames."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def progress(self) -> JobProgress:
        """Current progress."""
        total, fps = self.plan.frames, self.fps
        running = self._pass
        return JobProgress(
            status=self.status,
            message=self.message or self._waits_for(),
            frame=self.frame,
            running=None if running < 0 else self.plan.job.passes[running],
            done=self.done_frames,
            total=total,
            fps=fps,
            left_s=(total - self.done_frames) / fps if fps else None,
        )

    def _waits_for(self) -> str:
        if self.status is not JobStatus.WAITING:
            return ""
        before = self._slots.before(self._ticket)
        return f"{before} in line before it" if before else "next in line"

    def live(self, frame: int) -> FrameResult | None:
        """The job's result for a frame, if it has reached it."""
        with self._live_lock:
            kept = self._live.get(frame)
        if kept is None:
            return self._written(frame)
        result, packed = kept
        labels = np.frombuffer(zlib.decompress(packed), np.uint8).astype(np.uint16)
        height, width = self._video.info.size_hw
        return FrameResult(
            result.index,
            result.pts,
            result.time_base,
            result.keyframe,
            labels.reshape(height, width),
            result.objects,
        )

    def _written(self, frame: int) -> FrameResult | None:
        """The result that the last pass over a frame has written."""
        for number in range(self._pass, -1, -1):
            task = self.plan.job.passes[number]
            start = task.first if task.direction == "forward" else task.last
            if frame not in task.frames:
                continue
            try:
                store = MaskStore.open_if_exists(pass_store(self.plan.target, number))
                if store is not None and abs(frame - start) < len(store):
                    found = store.frame(abs(frame - start))
                    return found if found.index == frame else None
            except StoreError:
                return None  # the job has just ended and merged its stores
        return None

    def _run(self) -> None:
        try:
            with self._slots.slot(self._ticket, self._stop.is_set):
                self._track()
        except StoreError as error:  # the plan stays, with what has been tracked
            self._end_failed(f"{error} What was tracked is kept: make room, then track again.")
        except MaskstreamError as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("tracking failed")
            self._fail(f"Tracking failed: {error}. What was tracked before is kept.")

    def _track(self) -> None:
        if self._stop.is_set():
            self.plan.forget()
            self.status = JobStatus.STOPPED
            return
        self.status = JobStatus.RUNNING
        plan = self.plan
        pipeline = for_job(Pipeline(self._config.without_seeding()), plan.job)
        wanted = plan.parsed()
        done = run_job(
            pipeline, self._video, wanted, plan.before(), plan.target, on_frame=self._on_frame
        )
        self._finished(plan, outcome_of(plan, done, self._masks))
        plan.forget()
        self.status = JobStatus.DONE if done.finished else JobStatus.STOPPED

    def _on_frame(self, number: int, result: FrameResult) -> None:
        packed = zlib.compress(result.labels.astype(np.uint8).tobytes(), 1)
        with self._live_lock:
            slim = FrameResult(
                result.index,
                result.pts,
                result.time_base,
                result.keyframe,
                np.zeros((0, 0), np.uint16),
                result.objects,
            )
            self._live[result.index] = slim, packed
            self._live.move_to_end(result.index)
            while len(self._live) > LIVE_KEPT:
                self._live.popitem(last=False)
        self.frame, self._pass = result.index, number
        self.done_frames += 1
        self._times.append(time.monotonic())
        self._go.wait()
        if self._stop.is_set():
            self.status = JobStatus.JOINING
            raise TrackingStopped
        if self.done_frames >= self.plan.frames:
            self.status = JobStatus.JOINING

    def _fail(self, message: str) -> None:
        self._end_failed(message)
        self.plan.forget()

    def _end_failed(self, message: str) -> None:
        self.message = message
        self.status = JobStatus.FAILED
