"""Retracking: track parts of a video again and merge the results with the other masks.

A job never modifies a store. Each of its passes writes a separate one, and `run_job` merges them
with the previous job's store into a new one: everything that the job did not track is copied. So a
correction does not change other objects, a stopped job keeps its results, and running the same jobs
again gives the same store.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskstream.pipeline.engine.backward import reversed_in_time
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import StoreError
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


class TrackingStopped(Exception):  # noqa: N818 - not an error: a person pressed Stop
    """Raised by a job's `on_frame` to stop it; its results so far are kept."""


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


def run_job(
    pipeline: Pipeline,
    video: Seekable,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
    *,
    on_frame: OnFrame = lambda number, result: None,
) -> TrackJob[Event]:
    """Run the passes of a job and write the merged store; returns the job as far as it was done.

    before: the previous job's store. on_frame: called with the number of the pass and its result;
    an exception ends the job, and after `TrackingStopped` the results so far are merged and
    returned. Passes are stored in a folder beside `target` while the job runs (`passes_folder`);
    after a `StoreError` they stay there for `recover_job`.

    Raises:
        SourceError, PromptError, StoreError: as `Pipeline.stream` and the stores.
    """
    folder = passes_folder(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done: list[TrackPass[Event]] = []
    finished = True
    with _removed_unless_full(folder):
        for number, task in enumerate(job.passes):
            pass_done = _run_pass(
                pipeline, video, task, pass_store(target, number), number, on_frame
            )
            if pass_done is None:
                finished = False
                break
            done.append(pass_done)
            if pass_done != task:
                finished = False
                break
        job = job.truncate_job(done, finished=finished)
        join(pipeline, video.info, job, before, target)
    return job


@contextmanager
def _removed_unless_full(folder: Path) -> Iterator[None]:
    """Remove a folder of passes at the end; not after a `StoreError`, to merge them later."""
    full = False
    try:
        yield
    except StoreError:
        full = True
        raise
    finally:
        if not full:
            shutil.rmtree(folder, ignore_errors=True)


def for_job(pipeline: Pipeline, job: TrackJob[Any]) -> Pipeline:
    """The pipeline with keyframes as a job wants them."""
    if job.quality is None:
        return pipeline
    config = pipeline.config
    wanted: dict[str, Any] = {"work": 0.0} if job.quality == "draft" else {"interval": 1}
    keyframes = config.keyframes.model_copy(update=wanted)
    return Pipeline(config.model_copy(update={"keyframes": keyframes}))


def recover_job(
    pipeline: Pipeline,
    info: SourceInfo,
    job: TrackJob[Event],
    before: MaskStore | None,
    target: Path,
) -> TrackJob[Event] | None:
    """Merge the results of a killed job up to its last keyframe; None if there are none.

    Raises `StoreError`; the results stay for another try.
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
    with _removed_unless_full(passes_folder(target)):
        if not done:
            return None
        job = job.truncate_job(done, finished=False)
        join(pipeline, info, job, before, target)
    return job


def passes_folder(target: Path) -> Path:
    """Folder of a job's passes while it runs."""
    return target.with_name(f"{target.name}.passes")


def pass_store(target: Path, number: int) -> Path:
    """Path of the store of one pass."""
    return passes_folder(target) / f"{number}.zarr"


def _run_pass(
    pipeline: Pipeline,
    video: Seekable,
    task: TrackPass[Event],
    target: Path,
    number: int,
    on_frame: OnFrame,
) -> TrackPass[Event] | None:
    """Run a pass into a store; returns it as far as it was done, None if nothing was done."""
    forward = task.direction == "forward"
    source: Source | _ReversedSource
    if forward:
        source = video.between(task.first, task.last)
    else:
        source = _ReversedSource(video.backwards(task.first, task.last))
    log = PromptLog(version=1, events=task.events)
    reached: int | None = None
    with MaskStoreWriter(target, info=video.info, attributes={}, mode="overwrite") as writer:
        try:
            with closing(pipeline.stream(source, log)) as results:
                for result in results:
                    if isinstance(source, _ReversedSource) and result.pts is not None:
                        result = replace(result, pts=source.end_pts - result.pts)
                    writer.append(result)
                    if result.keyframe:  # later frames do not change the ones up to here
                        reached = result.index
                    on_frame(number, result)
            return task
        except TrackingStopped:
            pass
    return None if reached is None else truncate_pass(task, reached)


def truncate_pass(task: TrackPass[Event], reached: int) -> TrackPass[Event]:
    """Truncate a pass at the keyframe `reached`."""
    if task.direction == "forward":
        return task.narrowed(last=reached)
    return task.narrowed(first=reached)


class _ReversedSource:
    """A reversed source with increasing timestamps. end_pts: original one of its first frame."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.end_pts = 0

    @contextmanager
    def open(self) -> Iterator[_TimeReversedReader]:
        with self._source.open() as reader:
            yield _TimeReversedReader(
                reader.info, reader.report, reversed_in_time(self._record_end_pts(iter(reader)))
            )

    def _record_end_pts(self, frames: Iterator[Frame]) -> Iterator[Frame]:
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
