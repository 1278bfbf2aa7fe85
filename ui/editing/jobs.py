"""Plans and outcomes of tracking jobs that were finished, stopped or killed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.prompts import Event, EventRef, TrackJob, read_masks
from maskstream.pipeline.runs.joining import FramesByNumber
from maskstream.pipeline.runs.retrack import recover_job
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import SourceInfo
from maskstream.ui.editing.entries import DoneSegment, Handover
from maskstream.ui.editing.mask_files import MaskFiles
from maskstream.ui.editing.track_plan import PendingSegment, Way

PLAN = "tracking.json"


class _PlanFile(BaseModel):
    """Contents of `tracking.json` while a job runs."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    job: TrackJob[EventRef]
    segments: tuple[PendingSegment, ...] = Field(alias="stretches")
    store: str
    onto: str | None


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The plan of a tracking job. job: its masks are files of the folder.

    segments: the segments it tracks, in the job's order. store, onto: names of the new store and
    of the old one in the folder.
    """

    folder: Path
    job: TrackJob[EventRef]
    segments: tuple[PendingSegment, ...]
    store: str
    onto: str | None

    @property
    def frames(self) -> int:
        """Number of frames in all passes."""
        return sum(len(task.frames) for task in self.job.passes)

    @property
    def target(self) -> Path:
        """Path of the store it writes."""
        return self.folder / self.store

    def parsed(self) -> TrackJob[Event]:
        """The job with its masks loaded. Raises `pydantic.ValidationError`."""
        return read_masks(self.job, self.folder)

    def before(self) -> MaskStore | None:
        """The store that the job continues from. Raises `StoreError`."""
        return None if self.onto is None else MaskStore(self.folder / self.onto)

    def save(self) -> None:
        """Write the plan beside the session, to recover from a crash."""
        file = _PlanFile(job=self.job, segments=self.segments, store=self.store, onto=self.onto)
        (self.folder / PLAN).write_text(file.model_dump_json(by_alias=True), encoding="utf-8")

    @classmethod
    def left_in(cls, folder: Path) -> JobPlan | None:
        """The plan of a killed job in this folder, if there is one."""
        try:
            file = _PlanFile.model_validate_json((folder / PLAN).read_bytes())
        except (OSError, ValueError):
            return None
        return cls(folder, file.job, file.segments, file.store, file.onto)

    def forget(self) -> None:
        """Delete the plan, once the session has recorded the job."""
        (self.folder / PLAN).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a tracking job.

    touched: the segments it reached; done: the same, as far as they are tracked now.
    """

    job: TrackJob[EventRef]
    touched: tuple[DoneSegment, ...]
    done: tuple[DoneSegment, ...]


def outcome_of(plan: JobPlan, done: TrackJob[Event], masks: MaskFiles) -> Outcome:
    """Compute the outcome of a job from its plan and the passes it completed.

    masks: stores the masks from which segments will be continued. Raises `StoreError`.
    """
    passes = [
        planned.narrowed(first=task.first, last=task.last)
        for planned, task in zip(plan.job.passes, done.passes, strict=False)
    ]
    ways = _PassProgress(plan, done, masks)
    touched = [i for i in range(len(plan.segments)) if ways.reached(i)]
    return Outcome(
        plan.job.truncate_job(passes, finished=done.finished),
        tuple(plan.segments[i].whole for i in touched),
        tuple(ways.done(i) for i in touched),
    )


class _PassProgress:
    """How far a job's passes got on each of its segments, by index in the plan."""

    def __init__(self, plan: JobPlan, done: TrackJob[Event], masks: MaskFiles) -> None:
        self._plan = plan
        self._reached = [task.frames for task in done.passes]
        self._rows = FramesByNumber(MaskStore(plan.target))
        self._masks = masks

    def reached(self, index: int) -> bool:
        """Whether a frame of the segment was tracked, if it needs tracking at all."""
        pending = self._plan.segments[index]
        if pending.forward is None and pending.backward is None:
            return True
        frames = range(pending.first, pending.last + 1)
        return (
            self._within(index, "forward", pending.last) in frames
            or self._within(index, "backward", pending.first) in frames
        )

    def done(self, index: int) -> DoneSegment:
        """The segment, as far as it is tracked."""
        pending = self._plan.segments[index]
        if pending.forward is not None:
            reached = self._within(index, "forward", pending.last)
            if reached != pending.last:
                seen = self._seen(pending.object, range(reached, pending.first - 1, -1))
                return pending.whole.model_copy(update={"ahead": seen or pending.forward})
        if pending.backward is not None:
            reached = self._within(index, "backward", pending.first)
            if reached != pending.first:
                seen = self._seen(pending.object, range(reached, pending.last + 1))
                return pending.whole.model_copy(update={"back": seen or pending.backward})
        return pending.whole

    def _within(self, index: int, way: Way, end: int) -> int:
        """The tracked frame nearest to `end`; a frame outside the segment if there is none."""
        pending = self._plan.segments[index]
        planned, forward = self._plan.job.segments[index], way == "forward"
        number = planned.forward if forward else planned.backward
        if number is None or number >= len(self._reached):
            return pending.first - 1 if forward else pending.last + 1
        frames = self._reached[number]
        return min(end, frames.stop - 1) if forward else max(end, frames.start)

    def _seen(self, object_id: int, frames: Iterable[int]) -> Handover | None:
        """The first of these frames on which the object is visible, with its mask."""
        for frame in frames:
            mask = self._rows.frame(frame).mask(object_id)
            if mask.any():
                return Handover(frame=frame, mask=self._masks.put(mask))
        return None


def recovered(
    plan: JobPlan, config: PipelineConfig, info: SourceInfo, masks: MaskFiles
) -> Outcome | None:
    """Merge the frames of a killed job and return its outcome; None if it had tracked nothing.

    Raises `MaskstreamError`.
    """
    done = recover_job(Pipeline(config), info, plan.parsed(), plan.before(), plan.target)
    return None if done is None else outcome_of(plan, done, masks)
