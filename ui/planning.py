"""What has to be tracked: stretches between anchors, and the passes of a job over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ui.entries import DoneStretch, Prompted
from ui.session import SessionObject, SessionState

Direction = Literal["both", "forward", "backward"]


def stretches_of(known: SessionObject, first: int, last: int) -> list[DoneStretch]:
    """The stretches of an object within a range of frames, as they ought to be.

    The frame of an anchor belongs to the stretch that it begins.
    """
    anchors = [a for t, a in known.anchors.items() if first <= t <= last]
    if not anchors:
        return []
    found = []
    if anchors[0].frame > first:
        found.append(_stretch(known.id, first, anchors[0].frame - 1, None, anchors[0]))
    ends: list[Prompted | None] = [*anchors[1:], None]
    for left, right in zip(anchors, ends, strict=True):
        end = last if right is None else right.frame - 1
        found.append(_stretch(known.id, left.frame, end, left, right))
    return found


def _stretch(
    object_id: int, first: int, last: int, left: Prompted | None, right: Prompted | None
) -> DoneStretch:
    return DoneStretch(
        object=object_id,
        first=first,
        last=last,
        left=None if left is None else left.frame,
        right=None if right is None else right.frame,
        left_mask=None if left is None else left.mask,
        right_mask=None if right is None else right.mask,
    )


def stale_stretches(
    state: SessionState, last_frame: int, direction: Direction = "both"
) -> list[DoneStretch]:
    """What a job would track: stretches in the range that are not tracked as their anchors say.

    last_frame: of the video. forward leaves out what lies before an object's first anchor, backward
    what lies after its last one. Locked objects stay as they are.
    """
    last = last_frame if state.last is None else min(state.last, last_frame)
    stale = []
    for known in state.objects.values():
        if known.locked:
            continue
        for stretch in stretches_of(known, state.first, last):
            wanted = direction == "both" or (
                stretch.left is not None if direction == "forward" else stretch.right is not None
            )
            if wanted and not any(_covers(done, stretch) for done in state.done):
                stale.append(stretch)
    return stale


def _covers(done: DoneStretch, wanted: DoneStretch) -> bool:
    same = ("object", "left", "right", "left_mask", "right_mask")
    return (
        done.first <= wanted.first
        and done.last >= wanted.last
        and all(getattr(done, name) == getattr(wanted, name) for name in same)
    )


def done_after(
    state: SessionState, touched: Sequence[DoneStretch], whole: Iterable[DoneStretch]
) -> tuple[DoneStretch, ...]:
    """What is tracked after a job that changed the stretches `touched` and did these `whole`."""

    def overlaps(done: DoneStretch) -> bool:
        return any(
            t.object == done.object and t.first <= done.last and t.last >= done.first
            for t in touched
        )

    kept = [done for done in state.done if not overlaps(done)]
    return tuple(done for done in (*kept, *whole) if done.object in state.objects)


@dataclass(slots=True)
class _Run:
    """Frames of one pass, and the stretches it tracks by their place in the plan."""

    first: int
    last: int
    members: list[int]


def plan_job(
    state: SessionState,
    stale: Sequence[DoneStretch],
    mask_event: Callable[[Prompted], dict[str, Any]],
) -> dict[str, Any]:
    """The job that tracks these stretches, as `TrackJob` takes it (masks as files).

    Stretches that overlap in time are followed in one pass, forward ones first.
    """
    forward = _runs([(s.first, s.last) if s.left is not None else None for s in stale])
    backward = _runs([(s.first, s.right) if s.right is not None else None for s in stale])
    passes: list[dict[str, Any]] = []
    place: dict[tuple[str, int], int] = {}
    for direction, runs in (("forward", forward), ("backward", backward)):
        for run in runs:
            members = [stale[i] for i in run.members]
            place |= {(direction, i): len(passes) for i in run.members}
            events = []
            for stretch in members:
                anchors = state.objects[stretch.object].anchors
                given = stretch.left if direction == "forward" else stretch.right
                beyond = stretch.last + 1 if direction == "forward" else stretch.first - 1
                assert given is not None  # noqa: S101 - `_runs` left the others out
                events.append(mask_event(anchors[given]))
                goes_on = any(
                    other.object == stretch.object
                    and (
                        other.first == beyond
                        if direction == "forward"
                        else other.right == stretch.first
                    )
                    for other in members
                )
                if run.first <= beyond <= run.last and not goes_on:
                    events.append({"type": "remove", "frame": beyond, "object": stretch.object})
            events.sort(key=lambda e: (e["frame"], e["object"], e["type"] == "mask"))
            passes.append(
                {"direction": direction, "first": run.first, "last": run.last, "events": events}
            )
    return {
        "objects": {str(known.id): known.name for known in state.objects.values()},
        "passes": passes,
        "stretches": [
            {
                "object": s.object,
                "first": s.first,
                "last": s.last,
                "forward": place.get(("forward", i)),
                "backward": place.get(("backward", i)),
            }
            for i, s in enumerate(stale)
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
