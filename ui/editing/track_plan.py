"""What has to be tracked: stretches between anchors, and the passes of a job over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.ui.editing.entries import DoneStretch, Handover, PromptedEntry
from maskstream.ui.editing.session import SessionObject, SessionState

Direction = Literal["both", "forward", "backward"]


class PendingStretch(BaseModel):
    """What is still to be tracked of a stretch: its frames `first` to `last`, both included.

    whole: the stretch as it is when that is done. forward, backward: where following begins, None
    if it does not go this way; neither if the object is gone. absent: it is not there on `first`.
    continues: these frames were followed forward by the job before, and the backward pass meets
    that.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    whole: DoneStretch
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


def stretches_of(known: SessionObject, first: int, last: int) -> list[DoneStretch]:
    """The stretches of an object within a range of frames, as they ought to be.

    The frame of an anchor belongs to the stretch that it begins. Where the object is said to be
    gone nothing is followed back from, so what lies before goes on as if to the end.
    """
    anchors = [a for t, a in known.anchors.items() if first <= t <= last]
    if not anchors:
        return []
    found = []
    if anchors[0].frame > first:
        found.append(_stretch(known.id, first, anchors[0].frame - 1, None, anchors[0]))
    ends: list[PromptedEntry | None] = [*anchors[1:], None]
    for left, right in zip(anchors, ends, strict=True):
        end = last if right is None else right.frame - 1
        found.append(_stretch(known.id, left.frame, end, left, right))
    return found


def _stretch(
    object_id: int, first: int, last: int, left: PromptedEntry | None, right: PromptedEntry | None
) -> DoneStretch:
    return DoneStretch(
        object=object_id,
        first=first,
        last=last,
        left=None if left is None else left.frame,
        right=None if right is None or right.handover is None else right.frame,
        left_mask=None if left is None else left.mask,
        right_mask=None if right is None or right.handover is None else right.mask,
    )


def stale_stretches(
    state: SessionState, frames: range, direction: Direction = "both"
) -> list[PendingStretch]:
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
        for stretch in stretches_of(known, first, last):
            wanted = direction == "both" or (
                stretch.left is not None if direction == "forward" else stretch.right is not None
            )
            pending = _todo(known, stretch, state.done) if wanted else None
            if pending is not None:
                stale.append(pending)
    return stale


def _todo(
    known: SessionObject, wanted: DoneStretch, done: Iterable[DoneStretch]
) -> PendingStretch | None:
    """What is to be done of a stretch, or left of it by a job that was stopped."""
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
            return PendingStretch(
                whole=wanted, first=begun, last=wanted.last, forward=there.ahead, backward=backward
            )
        if there.back is not None and _holds(there, wanted):
            if there.back.frame <= wanted.first:
                return None
            return PendingStretch(
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
    return PendingStretch(
        whole=wanted,
        first=wanted.first,
        last=wanted.last,
        forward=forward,
        backward=backward,
        absent=left is not None and forward is None,
    )


def _same_ends(done: DoneStretch, wanted: DoneStretch) -> bool:
    same = ("object", "left", "right", "left_mask", "right_mask")
    return all(getattr(done, name) == getattr(wanted, name) for name in same)


def _holds(done: DoneStretch, wanted: DoneStretch) -> bool:
    return done.first <= wanted.first and done.last >= wanted.last


def _overlaps(one: DoneStretch, other: DoneStretch) -> bool:
    return one.object == other.object and one.first <= other.last and one.last >= other.first


def done_after(
    state: SessionState, touched: Sequence[DoneStretch], done: Iterable[DoneStretch]
) -> tuple[DoneStretch, ...]:
    """What is tracked after a job that changed the stretches `touched` and leaves these `done`."""
    kept = [left for old in state.done if (left := _untouched(old, touched)) is not None]
    return tuple(stretch for stretch in (*kept, *done) if stretch.object in state.objects)


def _untouched(old: DoneStretch, touched: Iterable[DoneStretch]) -> DoneStretch | None:
    """What is left of a stretch: what was followed one way only holds up to what is touched."""
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
    """Frames of one pass, and the stretches it tracks by their place in the plan."""

    first: int
    last: int
    members: list[int]


def plan_job(
    state: SessionState,
    stale: Sequence[PendingStretch],
    mask_event: Callable[[int, Handover], dict[str, Any]],
) -> dict[str, Any]:
    """The job that tracks these stretches, as `TrackJob` takes it (masks as files).

    Stretches that overlap in time are followed in one pass, forward ones first. mask_event: an
    object and where it is followed from, as an event of a prompts file.
    """
    passes: list[dict[str, Any]] = []
    place: dict[tuple[str, int], int] = {}
    for direction in ("forward", "backward"):
        starts = [t.forward if direction == "forward" else t.backward for t in stale]
        spans = [
            None
            if start is None
            else (min(pending.first, start.frame), max(pending.last, start.frame))
            for pending, start in zip(stale, starts, strict=True)
        ]
        for run in _runs(spans):
            place |= {(direction, i): len(passes) for i in run.members}
            events = []
            given = {(stale[i].object, start.frame) for i in run.members if (start := starts[i])}
            for i in run.members:
                pending, start = stale[i], starts[i]
                beyond = pending.last + 1 if direction == "forward" else pending.first - 1
                goes_on = beyond if direction == "forward" else pending.first
                if start is not None:
                    events.append(mask_event(pending.object, start))
                if run.first <= beyond <= run.last and (pending.object, goes_on) not in given:
                    events.append({"type": "remove", "frame": beyond, "object": pending.object})
            events.sort(key=lambda e: (e["frame"], e["object"], e["type"] == "mask"))
            passes.append(
                {"direction": direction, "first": run.first, "last": run.last, "events": events}
            )
    return {
        "objects": {str(known.id): known.name for known in state.objects.values()},
        "passes": passes,
        "stretches": [
            {
                "object": pending.object,
                "first": pending.first,
                "last": pending.last,
                "forward": place.get(("forward", i)),
                "backward": place.get(("backward", i)),
                "gone": pending.absent,
                "onto": pending.continues,
            }
            for i, pending in enumerate(stale)
        ],
    }


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
