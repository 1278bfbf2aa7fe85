"""Merge the stores of a job's passes with the store of the job before."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.prompts import Event, MaskEvent, Segment, TrackJob
from maskstream.pipeline.results.edits import BoolMap, add_object, keep_objects, prompted_object
from maskstream.pipeline.results.review import Reviewer
from maskstream.pipeline.runs.outputs import attributes_of, event_to_json
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.iou import mask_iou


class FramesByNumber:
    """Frames of a store by frame index, independent of the order of rows.

    store: of a pass, or of an earlier job. within: frame indices to use; None: all.
    """

    def __init__(self, store: MaskStore, within: range | None = None) -> None:
        self._store = store
        numbers = store.indices
        order = np.argsort(numbers, kind="stable")
        self._rows = order.tolist()
        self.numbers: list[int] = numbers[order].tolist()
        if within is not None:
            kept = [i for i, number in enumerate(self.numbers) if number in within]
            self._rows = [self._rows[i] for i in kept]
            self.numbers = [self.numbers[i] for i in kept]

    def __contains__(self, number: int) -> bool:
        position = bisect.bisect_left(self.numbers, number)
        return position < len(self.numbers) and self.numbers[position] == number

    def frame(self, number: int) -> FrameResult:
        """Read the frame with this index, which must exist. Raises `StoreError`."""
        return self._store.frame(self._rows[bisect.bisect_left(self.numbers, number)])


def passes_folder(target: Path) -> Path:
    """Folder of a job's passes while it runs."""
    return target.with_name(f"{target.name}.passes")


def pass_store(target: Path, number: int) -> Path:
    """Path of the store of one pass."""
    return passes_folder(target) / f"{number}.zarr"


class _Origin(NamedTuple):
    """The pass that gives an object's mask on each frame of a segment."""

    segment: Segment
    forward: FramesByNumber | None
    backward: FramesByNumber | None
    switch: int  # first frame of the backward pass, if there are both

    def is_absent(self, frame: int) -> bool:
        """Whether a person marked the object absent on a frame."""
        within = self.segment.first <= frame <= self.segment.last
        return within and (
            self.segment.empty or (self.segment.absent and frame == self.segment.first)
        )

    def at(self, frame: int) -> FramesByNumber | None:
        if not self.segment.first <= frame <= self.segment.last or self.is_absent(frame):
            return None
        forward = self.forward if self.forward is not None and frame in self.forward else None
        backward = self.backward if self.backward is not None and frame in self.backward else None
        return (
            backward
            if backward is not None and (forward is None or frame >= self.switch)
            else forward
        )


def join(
    pipeline: Pipeline,
    info: SourceInfo,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
) -> None:
    """Write the merged store of a job whose passes are done. Raises `StoreError`."""
    passes = [
        FramesByNumber(MaskStore(pass_store(target, i)), task.frames)
        for i, task in enumerate(job.passes)
    ]
    old = None if before is None else FramesByNumber(before)
    origins = [_origin(segment, passes, old) for segment in job.segments]
    frames: set[int] = set(() if old is None else old.numbers)
    for origin in origins:
        segment = origin.segment
        frames.update(t for t in range(segment.first, segment.last + 1) if origin.at(t) is not None)
    given = _given(job)
    reviewer = Reviewer()
    first = min(frames, default=0)
    writer = MaskStoreWriter(
        target,
        info=info,
        attributes=attributes_of(pipeline, info.name),
        span={"start": str(first) if first else None, "end": None, "stride": 1},
        mode="overwrite",
    )
    try:
        writer.add_events(_events(job))
        for t in sorted(frames):
            result = _joined(t, job, old, origins)
            for found, mask in given.get(t, ()):
                result = add_object(keep_objects(result, _ids(result) - {found.id}), found, mask)
            writer.append(result)
            reviewer.add(result)
    except BaseException:
        writer.close(complete=False)
        raise
    items = [item.to_json() for item in reviewer.items()]
    writer.close(complete=job.finished, review=items)


def _events(job: TrackJob[Event]) -> list[JsonObject]:
    given = [event_to_json(event) for task in job.passes for event in task.events]
    names: list[JsonObject] = [
        {"frame": 0, "type": "rename", "object": i, "name": name} for i, name in job.objects.items()
    ]
    return [*given, *names]


def _given(job: TrackJob[Event]) -> dict[int, list[tuple[ObjectResult, BoolMap]]]:
    """Mask prompts at the start of segments, by frame; they are kept exactly.

    Tracking has them at the working resolution only.
    """
    given: dict[int, list[tuple[ObjectResult, BoolMap]]] = {}
    for segment in job.segments:
        if segment.forward is None or segment.object not in job.objects:
            continue
        for event in job.passes[segment.forward].events:
            begins = event.object == segment.object and event.frame == segment.first
            if begins and isinstance(event, MaskEvent):
                found = prompted_object(segment.object, event.mask, 1.0)
                given.setdefault(event.frame, []).append((found, event.mask))
    return given


def _ids(result: FrameResult) -> set[int]:
    return {found.id for found in result.objects}


def _origin(
    segment: Segment, passes: Sequence[FramesByNumber], old: FramesByNumber | None
) -> _Origin:
    forward = passes[segment.forward] if segment.forward is not None else None
    if segment.continues:
        forward = old
    backward = None if segment.backward is None else passes[segment.backward]
    switch = segment.last + 1
    if forward is not None and backward is not None:
        common = [
            t for t in range(segment.first, segment.last + 1) if t in forward and t in backward
        ]
        stopped = segment.first not in backward  # the next job continues with these frames
        switch = (
            common[0]
            if common and stopped
            else _switch_frame(segment.object, common, forward, backward, switch)
        )
    return _Origin(segment, forward, backward, switch)


def _switch_frame(
    object_id: int,
    frames: Sequence[int],
    forward: FramesByNumber,
    backward: FramesByNumber,
    default: int,
) -> int:
    """Frame where two passes agree best (mask IoU), the one nearest to the middle among equals."""
    best, switch = (-1.0, 0.0), default
    middle = (frames[0] + frames[-1]) / 2 if frames else 0.0
    for t in frames:
        agreement = mask_iou(
            forward.frame(t).mask(object_id), backward.frame(t).mask(object_id), empty=1.0
        )
        rank = (agreement, -abs(t - middle))
        if rank > best:
            best, switch = rank, t
    return switch


def _joined(
    frame: int, job: TrackJob[Event], old: FramesByNumber | None, origins: Sequence[_Origin]
) -> FrameResult:
    fresh = {o.segment.object: rows for o in origins if (rows := o.at(frame)) is not None}
    result: FrameResult | None = None
    if old is not None and frame in old:
        empty = {o.segment.object for o in origins if o.is_absent(frame)}
        result = keep_objects(old.frame(frame), job.objects.keys() - fresh.keys() - empty)
    for rows in dict.fromkeys(fresh.values()):
        fresh_result = rows.frame(frame)
        ids = {i for i, origin in fresh.items() if origin is rows and i in job.objects}
        if result is None or not result.objects:
            result = keep_objects(fresh_result, ids)
            continue
        keyframe = result.keyframe or fresh_result.keyframe
        for found in fresh_result.objects:
            if found.id in ids:
                result = add_object(result, found, fresh_result.mask(found.id))
        result = replace(result, keyframe=keyframe)
    assert result is not None  # noqa: S101 - every frame has an origin
    return result
