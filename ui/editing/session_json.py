"""JSON views of a session for the page's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.results.review import ReviewItem
from maskstream.pipeline.types import SourceInfo
from maskstream.ui.editing.entries import PromptedEntry
from maskstream.ui.editing.session import Session, SessionObject
from maskstream.ui.editing.track_plan import PendingSegment
from maskstream.ui.editing.tracking_task import JobProgress


@dataclass(frozen=True, slots=True)
class SessionView:
    """State of a session as the page shows it, without pixels.

    revision: increases with every change. frames: frame indices of the video,
    an estimate unless `count_known`. stale: segments to be
    tracked. job: progress of tracking, None before the first job. masks: what exports depend on
    (`FinalMasks.fingerprint`). seconds: estimate of tracking what is stale, by quality.
    """

    revision: int
    info: SourceInfo
    frames: range
    count_known: bool
    title: str
    objects: Sequence[SessionObject]
    first: int
    last: int
    can_undo: bool
    can_redo: bool
    store: str | None
    stale: Sequence[PendingSegment]
    job: JobProgress | None
    order: Sequence[int]
    model: str
    masks: str
    seconds: Mapping[str, float]

    @classmethod
    def of(
        cls,
        session: Session,
        info: SourceInfo,
        frames: range,
        *,
        count_known: bool,
        revision: int,
        stale: Sequence[PendingSegment],
        job: JobProgress | None,
        masks: str,
        seconds: Mapping[str, float],
    ) -> SessionView:
        """Take a view of a session."""
        state = session.tracked_state
        return cls(
            revision=revision,
            info=info,
            frames=frames,
            count_known=count_known,
            title=session.title,
            objects=tuple(state.objects.values()),
            first=max(state.first, frames.start),
            last=frames[-1] if state.last is None else state.last,
            can_undo=session.position > 0,
            can_redo=session.position < len(session.log),
            store=state.store,
            stale=tuple(stale),
            job=job,
            order=state.order,
            model=state.model,
            masks=masks,
            seconds=seconds,
        )

    def to_json(self) -> JsonObject:
        """Convert to JSON values."""
        height, width = self.info.size_hw
        return {
            "revision": self.revision,
            "title": self.title,
            "width": width,
            "height": height,
            "start": self.frames.start,
            "end": self.frames[-1],
            "frames": len(self.frames),
            "count_known": self.count_known,
            "fps": float(self.info.rate or 25),
            "first": self.first,
            "last": self.last,
            "objects": [_object_json(known) for known in self.objects],
            "order": [*self.order],
            "model": self.model,
            "masks": self.masks,
            "seconds": {quality: round(value, 1) for quality, value in self.seconds.items()},
            "can_undo": self.can_undo,
            "can_redo": self.can_redo,
            "store": self.store,
            "stale": [{"object": s.object, "first": s.first, "last": s.last} for s in self.stale],
            "job": None if self.job is None else _job_json(self.job),
        }


@dataclass(frozen=True, slots=True)
class SessionProgress:
    """What is going on in a session, for a list of sessions.

    job: progress of tracking, None before the first job since the server started.
    """

    title: str
    objects: int
    tracked: bool
    job: JobProgress | None

    @classmethod
    def of(cls, session: Session, job: JobProgress | None) -> SessionProgress:
        """Take the progress of a session."""
        state = session.tracked_state
        return cls(session.title, len(state.objects), state.store is not None, job)

    def to_json(self) -> JsonObject:
        """Convert to JSON values."""
        return {
            "title": self.title,
            "objects": self.objects,
            "tracked": self.tracked,
            "job": None if self.job is None else _job_json(self.job),
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """Confidence over time (`confidence_strips`), and the review items."""

    strips: Mapping[int, list[int]]
    review: Sequence[ReviewItem]

    def to_json(self) -> JsonObject:
        """Convert to JSON values."""
        return {
            "strips": {str(object_id): [*strip] for object_id, strip in self.strips.items()},
            "review": [item.to_json() for item in self.review],
        }


def _object_json(known: SessionObject) -> JsonObject:
    return {
        "id": known.id,
        "name": known.name,
        "colour": known.color,
        "visible": known.visible,
        "locked": known.locked,
        "edges": known.edges.model_dump(),
        "anchors": [_anchor_json(anchor) for anchor in known.anchors.values()],
    }


def _anchor_json(anchor: PromptedEntry) -> JsonObject:
    return {
        "frame": anchor.frame,
        "via": anchor.via,
        "clicks": [[c.x, c.y, c.label] for c in anchor.clicks],
        "box": None if anchor.box_xyxy is None else [*anchor.box_xyxy],
        "candidates": len(anchor.candidates),
        "chosen": anchor.chosen % len(anchor.candidates),
    }


def _job_json(job: JobProgress) -> JsonObject:
    running = job.running
    return {
        "status": job.status.value,
        "message": job.message,
        "frame": job.frame,
        "pass": None
        if running is None
        else {
            "direction": running.direction,
            "first": running.first,
            "last": running.last,
            "objects": [*sorted({event.object for event in running.events})],
        },
        "done": job.done,
        "total": job.total,
        "fps": round(job.fps, 1),
        "left_s": None if job.left_s is None else round(job.left_s, 1),
    }
