"""Tracking parts of a video anew: jobs of passes, joined with the masks that stay.

A job never changes a store. Each of its passes writes one of its own, and `run_job` joins them with
the store of the job before into a new one: every frame of every object that the job did not track
is copied. So other objects stay untouched by a correction, a stopped job keeps what it has done,
and the same jobs run again give the same store.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskstream.pipeline.engine.backward import reversed_in_time
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.prompts import Event, MaskEvent, PromptLog, Segment, TrackJob, TrackPass
from maskstream.pipeline.results.edits import BoolMap, add_object, keep_objects, prompted_object
from maskstream.pipeline.results.review import Reviewer
from maskstream.pipeline.runs.outputs import attributes_of, event_to_json
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import (
    Frame,
    FrameResult,
    ObjectResult,
    Source,
    SourceInfo,
    SourceReport,
)
from maskstream.trackers.iou import mask_iou

OnFrame = Callable[[int, FrameResult], None]


class TrackingStopped(Exception):  # noqa: N818 - no error: somebody pressed Stop
    """Raised by a job's `on_frame` to end it; what is done is kept."""


class FramesByNumber:
    """Frames of a store by their numbers, whatever order they were written in.

    store: of a pass, or of an earlier job. within: the numbers that count.
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
        place = bisect.bisect_left(self.numbers, number)
        return place < len(self.numbers) and self.numbers[place] == number

    def frame(self, number: int) -> FrameResult:
        """The frame with this number, which must be there. Raises `StoreError`."""
        return self._store.frame(self._rows[bisect.bisect_left(self.numbers, number)])


def run_job(
    pipeline: Pipeline,
    video: Seekable,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
    *,
    on_frame: OnFrame = lambda number, result: None,
) -> TrackJob[Event]:
    """Run the passes of a job and write the store that follows; gives what was really done.

    before: the store of the job before. on_frame: told the pass and its frame; what it raises ends
    the job, and if that is `TrackingStopped` what was done so far is joined and given. Passes are
    kept in a folder beside `target` while the job runs (`passes_folder`).

    Raises:
        SourceError, PromptError, StoreError: as `Pipeline.stream` and the stores do.
    """
    folder = passes_folder(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done: list[TrackPass[Event]] = []
    finished = True
    try:
        for number, task in enumerate(job.passes):
            ran = _run_pass(pipeline, video, task, pass_store(target, number), number, on_frame)
            if ran is None:
                finished = False
                break
            done.append(ran)
            if ran != task:
                finished = False
                break
        job = job.truncate_job(done, finished=finished)
        join(pipeline, video.info, job, before, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return job


def recover_job(
    pipeline: Pipeline,
    info: SourceInfo,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
) -> TrackJob[Event] | None:
    """Join what a job that was killed has left, up to its last keyframe; None if that is nothing.

    Raises `StoreError`.
    """
    done: list[TrackPass[Event]] = []
    for number, task in enumerate(job.passes):
        store = MaskStore.open_if_exists(pass_store(target, number))
        if store is None:
            break
        keyframes = [frame.index for frame in store.frame_objects() if frame.keyframe]
        if not keyframes:
            break
        done.append(task if store.complete else truncate_pass(task, keyframes[-1]))
        if not store.complete:
            break
    try:
        if not done:
            return None
        job = job.truncate_job(done, finished=False)
        join(pipeline, info, job, before, target)
    finally:
        shutil.rmtree(passes_folder(target), ignore_errors=True)
    return job


def passes_folder(target: Path) -> Path:
    """Where the passes of a job that writes `target` are while it runs."""
    return target.with_name(f"{target.name}.passes")


def pass_store(target: Path, number: int) -> Path:
    """The store of one pass."""
    return passes_folder(target) / f"{number}.zarr"


def _run_pass(
    pipeline: Pipeline,
    video: Seekable,
    task: TrackPass[Event],
    place: Path,
    number: int,
    on_frame: OnFrame,
) -> TrackPass[Event] | None:
    """Run a pass into a store; gives it as far as it got, None if that is nowhere."""
    forward = task.direction == "forward"
    source: Source | _Mirrored
    if forward:
        source = video.between(task.first, task.last)
    else:
        source = _Mirrored(video.backwards(task.first, task.last))
    log = PromptLog(version=1, events=task.events)
    reached: int | None = None
    with MaskStoreWriter(place, info=video.info, attributes={}, mode="overwrite") as writer:
        try:
            with closing(pipeline.stream(source, log)) as results:
                for result in results:
                    if isinstance(source, _Mirrored) and result.pts is not None:
                        result = replace(result, pts=source.end_pts - result.pts)
                    writer.append(result)
                    if result.keyframe:  # nothing that comes later changes what is up to here
                        reached = result.index
                    on_frame(number, result)
            return task
        except TrackingStopped:
            pass
    return None if reached is None else truncate_pass(task, reached)


def truncate_pass(task: TrackPass[Event], reached: int) -> TrackPass[Event]:
    """A pass that went no further than the keyframe `reached`."""
    if task.direction == "forward":
        return task.narrowed(last=reached)
    return task.narrowed(first=reached)


class _Mirrored:
    """A source that comes last first, with time that runs forward. end_pts: of its first frame."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.end_pts = 0

    @contextmanager
    def open(self) -> Iterator[_TimeReversedReader]:
        with self._source.open() as reader:
            yield _TimeReversedReader(
                reader.info, reader.report, reversed_in_time(self._note(iter(reader)))
            )

    def _note(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        known = False
        for frame in frames:
            if not known and frame.pts is not None:
                self.end_pts, known = frame.pts, True
            yield frame


@dataclass(slots=True)
class _TimeReversedReader:
    info: SourceInfo
    report: SourceReport
    frames: Iterator[Frame]

    def __iter__(self) -> Iterator[Frame]:
        return self.frames


class _Origin(NamedTuple):
    """Which pass an object's mask comes from on the frames of a segment, by frame."""

    segment: Segment
    forward: FramesByNumber | None
    backward: FramesByNumber | None
    turn: int  # the first frame that comes from the backward pass, if both are there

    def empties(self, frame: int) -> bool:
        """Whether the object is not there: somebody said so."""
        within = self.segment.first <= frame <= self.segment.last
        return within and (
            self.segment.empty or (self.segment.absent and frame == self.segment.first)
        )

    def at(self, frame: int) -> FramesByNumber | None:
        if not self.segment.first <= frame <= self.segment.last or self.empties(frame):
            return None
        ahead = self.forward if self.forward is not None and frame in self.forward else None
        back = self.backward if self.backward is not None and frame in self.backward else None
        return back if back is not None and (ahead is None or frame >= self.turn) else ahead


def join(
    pipeline: Pipeline,
    info: SourceInfo,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
) -> None:
    """Write the store of a job whose passes are done. Raises `StoreError`."""
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
    """The masks that segments begin with, by frame: they are kept as they were given, to a pixel.

    Tracking knows them on its coarser grid only.
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
    turn = segment.last + 1
    if forward is not None and backward is not None:
        both = [t for t in range(segment.first, segment.last + 1) if t in forward and t in backward]
        stopped = segment.first not in backward  # where the next job goes on, with what is here
        turn = both[0] if both and stopped else _turn(segment.object, both, forward, backward, turn)
    return _Origin(segment, forward, backward, turn)


def _turn(
    object_id: int,
    frames: Sequence[int],
    forward: FramesByNumber,
    backward: FramesByNumber,
    default: int,
) -> int:
    """Where two passes agree best (IoU of masks), of equals the one nearest to the middle."""
    best, turn = (-1.0, 0.0), default
    middle = (frames[0] + frames[-1]) / 2 if frames else 0.0
    for t in frames:
        agreement = mask_iou(
            forward.frame(t).mask(object_id), backward.frame(t).mask(object_id), empty=1.0
        )
        rank = (agreement, -abs(t - middle))
        if rank > best:
            best, turn = rank, t
    return turn


def _joined(
    frame: int, job: TrackJob[Event], old: FramesByNumber | None, origins: Sequence[_Origin]
) -> FrameResult:
    fresh = {o.segment.object: rows for o in origins if (rows := o.at(frame)) is not None}
    result: FrameResult | None = None
    if old is not None and frame in old:
        empty = {o.segment.object for o in origins if o.empties(frame)}
        result = keep_objects(old.frame(frame), job.objects.keys() - fresh.keys() - empty)
    for rows in dict.fromkeys(fresh.values()):
        there = rows.frame(frame)
        ids = {i for i, origin in fresh.items() if origin is rows and i in job.objects}
        if result is None or not result.objects:
            result = keep_objects(there, ids)
            continue
        keyframe = result.keyframe or there.keyframe
        for found in there.objects:
            if found.id in ids:
                result = add_object(result, found, there.mask(found.id))
        result = replace(result, keyframe=keyframe)
    assert result is not None  # noqa: S101 - every frame comes from somewhere
    return result
