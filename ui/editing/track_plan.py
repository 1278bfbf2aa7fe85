"""Planning of tracking jobs: stale segments between anchors, and the passes over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.prompts import (
    EventRef,
    Quality,
    RemoveEvent,
    Segment,
    TrackJob,
    TrackPass,
)
from maskstream.ui.editing.entries import DoneSegment, Handover, PromptedEntry
from maskstream.ui.editing.session import SessionObject, SessionState, mask_ref

Direction = Literal["both", "forward", "backward"]
Way = Literal["forward", "backward"]
WAYS: tuple[Way, ...] = ("forward", "backward")


class PendingSegment(BaseModel):
    """The part of a segment still to be tracked: frames `first` to `last`, both inclusive.

    whole: the segment once tracked. forward, backward: where that pass starts, None without one;
    both None if the object is absent. absent: the object is marked absent on `first`. continues: a
    stopped job has tracked these frames forward, and the backward pass is merged with that.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    whole: DoneSegment
    first: int
    last: int
    forward: Handover | None
    backward: Handover | None
    absent: bool = Field(False, alias="gone")
    continues: bool = Field(False, alias="onto")

    @property
    def object(self) -> int:
        """Object id."""
        return self.whole.object

    def start(self, way: Way) -> Handover | None:
        """Where the pass in this direction starts; None if there is none."""
        return self.forward if way == "forward" else self.backward


def segments_of(known: SessionObject, first: int, last: int) -> list[DoneSegment]:
    """Split a range of frames into an object's segments, by its anchors.

    The frame of an anchor belongs to the segment that starts there. An anchor that marks the object
    absent starts no backward pass, so the segment before it is tracked forward only.
    """
    anchors = [a for t, a in known.anchors.items() if first <= t <= last]
    if not anchors:
        return []
    found = []
    if anchors[0].frame > first:
        found.append(_segment(known.id, first, anchors[0].frame - 1, None, anchors[0]))
    ends: list[PromptedEntry | None] = [*anchors[1:], None]
    for left, right in zip(anchors, ends, strict=True):
        end = last if right is None else right.frame - 1
        found.append(_segment(known.id, left.frame, end, left, right))
    return found


def _segment(
    object_id: int, first: int, last: int, left: PromptedEntry | None, right: PromptedEntry | None
) -> DoneSegment:
    return DoneSegment(
        object=object_id,
        first=first,
        last=last,
        left=None if left is None else left.frame,
        right=None if right is None or right.handover is None else right.frame,
        left_mask=None if left is None else left.mask,
        right_mask=None if right is None or right.handover is None else right.mask,
    )


def stale_segments(
    state: SessionState, frames: range, direction: Direction = "both"
) -> list[PendingSegment]:
    """Find the segments of the range that are not tracked from the current anchors.

    frames: frame indices of the video. direction: "forward" omits the segment before an object's
    first anchor, "backward" the one after its last. Locked objects are skipped.
    """
    first = max(state.first, frames.start)
    last = frames[-1] if state.last is None else min(state.last, frames[-1])
    stale = []
    for known in state.objects.values():
        if known.locked:
            continue
        for segment in segments_of(known, first, last):
            wanted = direction == "both" or (
                segment.left is not None if direction == "forward" else segment.right is not None
            )
            pending = _pending(known, segment, state.done) if wanted else None
            if pending is not None:
                stale.append(pending)
    return stale


def _pending(
    known: SessionObject, wanted: DoneSegment, done: Iterable[DoneSegment]
) -> PendingSegment | None:
    """The part of a segment to be tracked, or left by a stopped job; None if it is tracked."""
    left = None if wanted.left is None else known.anchors[wanted.left]
    right = None if wanted.right is None else known.anchors[wanted.right]
    forward = None if left is None else left.handover
    backward = None if right is None else right.handover
    for tracked in done:
        if not _same_ends(tracked, wanted) or not _overlaps(tracked, wanted):
            continue
        if tracked.ahead is not None and tracked.first <= wanted.first <= tracked.ahead.frame + 1:
            if tracked.ahead.frame >= wanted.last:
                return None
            first = tracked.ahead.frame + 1
            return PendingSegment(
                whole=wanted,
                first=first,
                last=wanted.last,
                forward=tracked.ahead,
                backward=backward,
            )
        if tracked.back is not None and _contains(tracked, wanted):
            if tracked.back.frame <= wanted.first:
                return None
            return PendingSegment(
                whole=wanted,
                first=wanted.first,
                last=min(wanted.last, tracked.back.frame - 1),
                forward=None,
                backward=tracked.back,
                absent=left is not None and forward is None,
                continues=forward is not None,
            )
        if tracked.ahead is None and tracked.back is None and _contains(tracked, wanted):
            return None
    return PendingSegment(
        whole=wanted,
        first=wanted.first,
        last=wanted.last,
        forward=forward,
        backward=backward,
        absent=left is not None and forward is None,
    )


def _same_ends(done: DoneSegment, wanted: DoneSegment) -> bool:
    same = ("object", "left", "right", "left_mask", "right_mask")
    return all(getattr(done, name) == getattr(wanted, name) for name in same)


def _contains(done: DoneSegment, wanted: DoneSegment) -> bool:
    return done.first <= wanted.first and done.last >= wanted.last


def _overlaps(one: DoneSegment, other: DoneSegment) -> bool:
    return one.object == other.object and one.first <= other.last and one.last >= other.first


def done_after(
    state: SessionState, touched: Sequence[DoneSegment], done: Iterable[DoneSegment]
) -> tuple[DoneSegment, ...]:
    """The tracked segments after a job that changed `touched` and completed `done`."""
    kept = [left for old in state.done if (left := _untouched(old, touched)) is not None]
    return tuple(segment for segment in (*kept, *done) if segment.object in state.objects)


def _untouched(old: DoneSegment, touched: Iterable[DoneSegment]) -> DoneSegment | None:
    """The part of a segment that stays valid: one-directional ones are cut at touched frames."""
    left = old
    for other in touched:
        if not _overlaps(left, other):
            continue
        if old.right is None and left.first < other.first:
            ahead = left.ahead if left.ahead and left.ahead.frame < other.first else None
            left = left.model_copy(update={"last": other.first - 1, "ahead": ahead})
        elif old.left is None and other.last < left.last:
            back = left.back if left.back and left.back.frame > other.last else None
            left = left.model_copy(update={"first": other.last + 1, "back": back})
        else:
            return None
    return left


@dataclass(slots=True)
class _Run:
    """The frames of one pass, and indices of the segments it tracks."""

    first: int
    last: int
    members: list[int]


def plan_job(
    state: SessionState, stale: Sequence[PendingSegment], quality: Quality | None = None
) -> TrackJob[EventRef]:
    """Plan the job that tracks these segments.

    Segments that overlap in time share a pass; forward passes come first.
    """
    passes: list[TrackPass[EventRef]] = []
    places: dict[tuple[Way, int], int] = {}
    for way in WAYS:
        for run in _runs([_span(pending, way) for pending in stale]):
            places |= {(way, i): len(passes) for i in run.members}
            members = [stale[i] for i in run.members]
            events = _pass_events(members, way, range(run.first, run.last + 1))
            passes.append(
                TrackPass[EventRef](direction=way, first=run.first, last=run.last, events=events)
            )
    segments = [
        Segment(
            object=pending.object,
            first=pending.first,
            last=pending.last,
            forward=places.get(("forward", i)),
            backward=places.get(("backward", i)),
            absent=pending.absent,
            continues=pending.continues,
        )
        for i, pending in enumerate(stale)
    ]
    names = {known.id: known.name for known in state.objects.values()}
    return TrackJob[EventRef](
        objects=names,
        passes=tuple(passes),
        segments=tuple(segments),
        quality=quality,
        model=state.model or None,
    )


def _span(pending: PendingSegment, way: Way) -> tuple[int, int] | None:
    """First and last frame of tracking a segment in this direction, including its start."""
    start = pending.start(way)
    if start is None:
        return None
    return min(pending.first, start.frame), max(pending.last, start.frame)


def _pass_events(
    members: Sequence[PendingSegment], way: Way, frames: range
) -> tuple[EventRef, ...]:
    """Events of a pass over `frames`: its starting masks, and the removals of its objects."""
    events: list[EventRef] = []
    starts = {(known.object, start.frame) for known in members if (start := known.start(way))}
    for pending in members:
        start = pending.start(way)
        beyond = pending.last + 1 if way == "forward" else pending.first - 1
        last_start = beyond if way == "forward" else pending.first
        if start is not None:
            events.append(mask_ref(pending.object, start))
        if beyond in frames and (pending.object, last_start) not in starts:
            events.append(RemoveEvent(type="remove", frame=beyond, object=pending.object))
    return tuple(sorted(events, key=lambda e: (e.frame, e.object, e.type == "mask")))


def _runs(spans: Sequence[tuple[int, int] | None]) -> list[_Run]:
    """Merge spans of frames that overlap or touch; None is skipped."""
    runs: list[_Run] = []
    known = sorted((span, i) for i, span in enumerate(spans) if span is not None)
    for (first, last), i in known:
        if runs and first <= runs[-1].last + 1:
            runs[-1].last = max(runs[-1].last, last)
            runs[-1].members.append(i)
        else:
            runs.append(_Run(first, last, [i]))
    return runs
