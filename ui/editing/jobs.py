"""What a tracking job is to do, and what it has done, be it finished, stopped or killed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.prompts import Event, EventRef, TrackJob, read_masks
from maskstream.pipeline.runs.retrack import FramesByNumber, recover_job
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import SourceInfo
from maskstream.ui.editing.entries import DoneSegment, Handover
from maskstream.ui.editing.mask_files import MaskFiles
from maskstream.ui.editing.track_plan import PendingSegment, Way

PLAN = "tracking.json"


class _PlanFile(BaseModel):
    """What `tracking.json` says while a job runs."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    job: TrackJob[EventRef]
    segments: tuple[PendingSegment, ...] = Field(alias="stretches")
    store: str
    onto: str | None


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job is to do. job: its masks are files of the folder.

    segments: what it tracks, as the job has them. store, onto: names in the folder of the new
    store and of the old one.
    """

    folder: Path
    job: TrackJob[EventRef]
    segments: tuple[PendingSegment, ...]
    store: str
    onto: str | None

    @property
    def frames(self) -> int:
        """Frames of all passes."""
        return sum(len(task.frames) for task in self.job.passes)

    @property
    def target(self) -> Path:
        """The store that it writes."""
        return self.folder / self.store

    def parsed(self) -> TrackJob[Event]:
        """The job with its masks read. Raises `pydantic.ValidationError`."""
        return read_masks(self.job, self.folder)

    def before(self) -> MaskStore | None:
        """The store that the job goes on from. Raises `StoreError`."""
        return None if self.onto is None else MaskStore(self.folder / self.onto)

    def save(self) -> None:
        """Write it beside the session, for the case of a crash."""
        file = _PlanFile(job=self.job, segments=self.segments, store=self.store, onto=self.onto)
        (self.folder / PLAN).write_text(file.model_dump_json(by_alias=True), encoding="utf-8")

    @classmethod
    def left_in(cls, folder: Path) -> JobPlan | None:
        """The plan of a job that was killed, if there is one."""
        try:
            file = _PlanFile.model_validate_json((folder / PLAN).read_bytes())
        except (OSError, ValueError):
            return None
        return cls(folder, file.job, file.segments, file.store, file.onto)

    def forget(self) -> None:
        """The job has ended, and its session says so."""
        (self.folder / PLAN).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job has done.

    touched: the segments it came to; done: how far these are tracked now.
    """

    job: TrackJob[EventRef]
    touched: tuple[DoneSegment, ...]
    done: tuple[DoneSegment, ...]


def outcome_of(plan: JobPlan, done: TrackJob[Event], masks: MaskFiles) -> Outcome:
    """What a job did, for the log, from what it was to do and as far as it got.

    masks: takes those from which segments are gone on with. Raises `StoreError`.
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
    """How far the passes of a job went on each of its segments, by their place in the plan."""

    def __init__(self, plan: JobPlan, done: TrackJob[Event], masks: MaskFiles) -> None:
        self._plan = plan
        self._reached = [task.frames for task in done.passes]
        self._rows = FramesByNumber(MaskStore(plan.target))
        self._masks = masks

    def reached(self, place: int) -> bool:
        """Whether a frame of it was tracked, if that is needed at all."""
        pending = self._plan.segments[place]
        if pending.forward is None and pending.backward is None:
            return True
        frames = range(pending.first, pending.last + 1)
        return (
            self._within(place, "forward", pending.last) in frames
            or self._within(place, "backward", pending.first) in frames
        )

    def done(self, place: int) -> DoneSegment:
        """The segment as far as it is tracked."""
        pending = self._plan.segments[place]
        if pending.forward is not None:
            reached = self._within(place, "forward", pending.last)
            if reached != pending.last:
                seen = self._seen(pending.object, range(reached, pending.first - 1, -1))
                return pending.whole.model_copy(update={"ahead": seen or pending.forward})
        if pending.backward is not None:
            reached = self._within(place, "backward", pending.first)
            if reached != pending.first:
                seen = self._seen(pending.object, range(reached, pending.last + 1))
                return pending.whole.model_copy(update={"back": seen or pending.backward})
        return pending.whole

    def _within(self, place: int, way: Way, end: int) -> int:
        """The frame nearest to `end` that a pass has done; beyond the segment if there is none."""
        pending = self._plan.segments[place]
        planned, forward = self._plan.job.segments[place], way == "forward"
        number = planned.forward if forward else planned.backward
        if number is None or number >= len(self._reached):
            return pending.first - 1 if forward else pending.last + 1
        frames = self._reached[number]
        return min(end, frames.stop - 1) if forward else max(end, frames.start)

    def _seen(self, object_id: int, frames: Iterable[int]) -> Handover | None:
        """The first of these frames that shows the object, and its mask there."""
        for frame in frames:
            mask = self._rows.frame(frame).mask(object_id)
            if mask.any():
                return Handover(frame=frame, mask=self._masks.put(mask))
        return None


def recovered(
    plan: JobPlan, config: PipelineConfig, info: SourceInfo, masks: MaskFiles
) -> Outcome | None:
    """What a job that was killed had done, joined now; None if that is nothing.

    Raises `MaskstreamError`.
    """
    done = recover_job(Pipeline(config), info, plan.parsed(), plan.before(), plan.target)
    return None if done is None else outcome_of(plan, done, masks)
