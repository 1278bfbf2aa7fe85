"""A tracking job in a thread of its own: progress, live preview, pause and stop."""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.engine import Pipeline
from pipeline.errors import MaskstreamError
from pipeline.prompts import TrackJob
from pipeline.retrack import TrackingStopped, recover_job, run_job
from pipeline.sources.seek import SeekableVideo
from pipeline.store import MaskStore
from pipeline.types import FrameResult, SourceInfo
from ui.entries import DoneStretch

logger = logging.getLogger(__name__)

PLAN = "tracking.json"
LIVE_KEPT = 512  # results, packed, of a job that runs
_SPEED_OVER = 24  # frames


class JobStatus(StrEnum):
    """Where a job is."""

    WAITING = "waiting"  # for somebody else's job on this server
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    JOINING = "joining"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = (JobStatus.DONE, JobStatus.STOPPED, JobStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is to do. job: JSON values of a `TrackJob`, masks relative to the folder.

    stretches: what it tracks. store, onto: names in the folder of the new store and the old one.
    """

    folder: Path
    job: dict[str, Any]
    stretches: tuple[DoneStretch, ...]
    store: str
    onto: str | None

    @property
    def frames(self) -> int:
        """Frames of all passes."""
        return sum(task["last"] - task["first"] + 1 for task in self.job["passes"])

    def parsed(self) -> TrackJob:
        """The job with its masks read. Raises `pydantic.ValidationError`."""
        return TrackJob.model_validate(self.job, context={"folder": self.folder})

    def before(self) -> MaskStore | None:
        """The store that the job goes on from. Raises `StoreError`."""
        return None if self.onto is None else MaskStore(self.folder / self.onto)

    def save(self) -> None:
        """Write it beside the session, for the case of a crash."""
        values = {
            "job": self.job,
            "stretches": [s.model_dump(mode="json") for s in self.stretches],
            "store": self.store,
            "onto": self.onto,
        }
        (self.folder / PLAN).write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def left_in(cls, folder: Path) -> Plan | None:
        """The plan of a job that was killed, if there is one."""
        try:
            values = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            stretches = tuple(DoneStretch.model_validate(s) for s in values["stretches"])
            return cls(folder, values["job"], stretches, values["store"], values["onto"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self) -> None:
        """The job has ended, and its session says so."""
        (self.folder / PLAN).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job has done. job: JSON values; whole: the stretches that are tracked altogether."""

    job: dict[str, Any]
    whole: tuple[DoneStretch, ...]


class TrackingTask:
    """One job. `finished` is called in its thread with what it has done (not if that is nothing).

    slots: how many jobs may run at a time on this server.
    """

    def __init__(
        self,
        plan: Plan,
        config: PipelineConfig,
        video: SeekableVideo,
        slots: threading.Semaphore,
        finished: Callable[[Plan, Outcome], None],
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
        self._finished = finished
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._times: deque[float] = deque(maxlen=_SPEED_OVER)
        self._live: OrderedDict[int, tuple[FrameResult, bytes]] = OrderedDict()
        self._live_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="maskstream-tracking", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.plan.save()
        self._thread.start()

    def pause(self) -> None:
        """Hold after the next frame."""
        if self.status is JobStatus.RUNNING:
            self._go.clear()
            self.status = JobStatus.PAUSED

    def resume(self) -> None:
        """Go on after a pause."""
        if self.status is JobStatus.PAUSED:
            self._times.clear()
            self.status = JobStatus.RUNNING
            self._go.set()

    def stop(self) -> None:
        """End after the next frame; what is done is kept."""
        self._stop.set()
        if self.status in (JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.WAITING):
            self.status = JobStatus.STOPPING
        self._go.set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended."""
        self._thread.join(timeout_s)

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status not in ENDED

    @property
    def fps(self) -> float:
        """Frames a second, over the last few."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Progress as JSON values."""
        total, fps = self.plan.frames, self.fps
        left = (total - self.done_frames) / fps if fps else None
        return {
            "status": self.status,
            "message": self.message,
            "frame": self.frame,
            "pass": None if self._pass < 0 else self._pass_json(),
            "done": self.done_frames,
            "total": total,
            "fps": round(fps, 1),
            "left_s": None if left is None else round(left, 1),
        }

    def _pass_json(self) -> dict[str, Any]:
        """The pass that runs: its direction and frames, and the objects that it follows."""
        task = self.plan.job["passes"][self._pass]
        objects = sorted({event["object"] for event in task["events"]})
        return {name: task[name] for name in ("direction", "first", "last")} | {"objects": objects}

    def live(self, frame: int) -> FrameResult | None:
        """What it said of a frame lately."""
        with self._live_lock:
            kept = self._live.get(frame)
        if kept is None:
            return None
        result, packed = kept
        labels = np.frombuffer(zlib.decompress(packed), np.uint8).astype(np.uint16)
        height, width = self._video.info.size_hw
        return FrameResult(
            *(result.index, result.pts, result.time_base, result.keyframe),
            labels.reshape(height, width),
            result.objects,
        )

    def _run(self) -> None:
        try:
            with self._slots:
                self._track()
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
        unseeded = self._config.seeding.model_copy(update={"enabled": False})
        pipeline = Pipeline(self._config.model_copy(update={"seeding": unseeded}))
        target = plan.folder / plan.store
        wanted = plan.parsed()
        done = run_job(
            pipeline, self._video, wanted, plan.before(), target, on_frame=self._on_frame
        )
        self._finished(plan, outcome_of(plan, done))
        plan.forget()
        self.status = JobStatus.DONE if done.finished else JobStatus.STOPPED

    def _on_frame(self, number: int, result: FrameResult) -> None:
        packed = zlib.compress(result.labels.astype(np.uint8).tobytes(), 1)
        with self._live_lock:
            slim = FrameResult(
                *(result.index, result.pts, result.time_base, result.keyframe),
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
        self.message = message
        self.status = JobStatus.FAILED
        self.plan.forget()


def outcome_of(plan: Plan, done: TrackJob) -> Outcome:
    """What a job did, for the log, from what it was to do and as far as it got."""
    passes = []
    for values, task in zip(plan.job["passes"], done.passes, strict=False):
        within = range(task.first, task.last + 1)
        events = [e for e in values["events"] if e["frame"] in within]
        passes.append({**values, "first": task.first, "last": task.last, "events": events})
    job = {
        **plan.job,
        "passes": passes,
        "stretches": [s.model_dump(mode="json") for s in done.stretches],
        "finished": done.finished,
    }
    whole = []
    reached = [range(task.first, task.last + 1) for task in done.passes]
    for stretch, wanted in zip(plan.stretches, plan.job["stretches"], strict=True):
        numbers = [n for n in (wanted["forward"], wanted["backward"]) if n is not None]
        if all(
            n < len(reached) and stretch.first in reached[n] and stretch.last in reached[n]
            for n in numbers
        ):
            whole.append(stretch)
    return Outcome(job, tuple(whole))


def recovered(plan: Plan, config: PipelineConfig, info: SourceInfo) -> Outcome | None:
    """What a job that was killed had done, joined now; None if that is nothing.

    Raises `MaskstreamError`.
    """
    done = recover_job(
        Pipeline(config), info, plan.parsed(), plan.before(), plan.folder / plan.store
    )
    return None if done is None else outcome_of(plan, done)
