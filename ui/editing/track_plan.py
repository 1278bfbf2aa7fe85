"""What has to be tracked: segments between anchors, and the passes of a job over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.prompts import EventRef, RemoveEvent, Segment, TrackJob, TrackPass
from maskstream.ui.editing.entries import DoneSegment, Handover, PromptedEntry
from maskstream.ui.editing.session import SessionObject, SessionState, mask_ref

Direction = Literal["both", "forward", "backward"]
Way = Literal["forward", "backward"]
WAYS: tuple[Way, ...] = ("forward", "backward")


class PendingSegment(BaseModel):
    """What is still to be tracked of a segment: its frames `first` to `last`, both included.

    whole: the segment as it is when that is done. forward, backward: where following begins, None
    if it does not go this way; neither if the object is gone. absent: it is not there on `first`.
    continues: these frames were followed forward by the job before, and the backward pass meets
    that.
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
        """The number of its object."""
        return self.whole.object

    def start(self, way: Way) -> Handover | None:
        """Where following it this way begins; None if it is not followed so."""
        return self.forward if way == "forward" else self.backward


def segments_of(known: SessionObject, first: int, last: int) -> list[DoneSegment]:
    """The segments of an object within a range of frames, as they ought to be.

    The frame of an anchor belongs to the segment that it begins. Where the object is said to be
    gone nothing is followed back from, so what lies before goes on as if to the end.
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
    """What a job would track: what of the range is not tracked as the anchors say.

    frames: of the video. forward leaves out what lies before an object's first anchor, backward
    what lies after its last one. Locked objects stay as they are.
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
    """What is to be done of a segment, or left of it by a job that was stopped."""
    left = None if wanted.left is None else known.anchors[wanted.left]
    right = None if wanted.right is None else known.anchors[wanted.right]
    forward = None if left is None else left.handover
    backward = None if right is None else right.handover
    for there in done:
        if not _same_ends(there, wanted) or not _overlaps(there, wanted):
            continue
        if there.ahead is not None and there.first <= wanted.first <= there.ahead.frame + 1:
            if there.ahead.frame >= wanted.last:
                return None
            begun = there.ahead.frame + 1
            return PendingSegment(
                whole=wanted, first=begun, last=wanted.last, forward=there.ahead, backward=backward
            )
        if there.back is not None and _holds(there, wanted):
            if there.back.frame <= wanted.first:
                return None
            return PendingSegment(
                whole=wanted,
                first=wanted.first,
                last=min(wanted.last, there.back.frame - 1),
                forward=None,
                backward=there.back,
                absent=left is not None and forward is None,
                continues=forward is not None,
            )
        if there.ahead is None and there.back is None and _holds(there, wanted):
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


def _holds(done: DoneSegment, wanted: DoneSegment) -> bool:
    return done.first <= wanted.first and done.last >= wanted.last


def _overlaps(one: DoneSegment, other: DoneSegment) -> bool:
    return one.object == other.object and one.first <= other.last and one.last >= other.first


def done_after(
    state: SessionState, touched: Sequence[DoneSegment], done: Iterable[DoneSegment]
) -> tuple[DoneSegment, ...]:
    """What is tracked after a job that changed the segments `touched` and leaves these `done`."""
    kept = [left for old in state.done if (left := _untouched(old, touched)) is not None]
    return tuple(segment for segment in (*kept, *done) if segment.object in state.objects)


def _untouched(old: DoneSegment, touched: Iterable[DoneSegment]) -> DoneSegment | None:
    """What is left of a segment: what was followed one way only holds up to what is touched."""
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
    """Frames of one pass, and the segments it tracks by their place in the plan."""

    first: int
    last: int
    members: list[int]


def plan_job(state: SessionState, stale: Sequence[PendingSegment]) -> TrackJob[EventRef]:
    """The job that tracks these segments.

    Segments that overlap in time are followed in one pass, forward ones first.
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
    return TrackJob[EventRef](objects=names, passes=tuple(passes), segments=tuple(segments))


def _span(pending: PendingSegment, way: Way) -> tuple[int, int] | None:
    """The first and the last frame of following a segment this way, where it begins included."""
    start = pending.start(way)
    if start is None:
        return None
    return min(pending.first, start.frame), max(pending.last, start.frame)


def _pass_events(
    members: Sequence[PendingSegment], way: Way, frames: range
) -> tuple[EventRef, ...]:
    """The masks that a pass over `frames` begins with, and where each of its objects ends."""
    events: list[EventRef] = []
    given = {(known.object, start.frame) for known in members if (start := known.start(way))}
    for pending in members:
        start = pending.start(way)
        beyond = pending.last + 1 if way == "forward" else pending.first - 1
        goes_on = beyond if way == "forward" else pending.first
        if start is not None:
            events.append(mask_ref(pending.object, start))
        if beyond in frames and (pending.object, goes_on) not in given:
            events.append(RemoveEvent(type="remove", frame=beyond, object=pending.object))
    return tuple(sorted(events, key=lambda e: (e.frame, e.object, e.type == "mask")))


def _runs(spans: Sequence[tuple[int, int] | None]) -> list[_Run]:
    """Join spans of frames that overlap or follow on each other; None is left out."""
    runs: list[_Run] = []
    there = sorted((span, i) for i, span in enumerate(spans) if span is not None)
    for (first, last), i in there:
        if runs and first <= runs[-1].last + 1:
            runs[-1].last = max(runs[-1].last, last)
            runs[-1].members.append(i)
        else:
            runs.append(_Run(first, last, [i]))
    return runs
