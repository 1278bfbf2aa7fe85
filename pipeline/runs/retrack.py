"""Retracking: track parts of a video again and merge the results with the other masks.

A job never modifies a store. Each of its passes writes a separate one, and `run_job` merges them
with the previous job's store into a new one: everything that the job did not track is copied. So a
correction does not change other objects, a stopped job keeps its results, and running the same jobs
again gives the same store.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskstream.pipeline.engine.backward import reversed_in_time
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.prompts import Event, PromptLog, TrackJob, TrackPass
from maskstream.pipeline.runs.joining import join, pass_store, passes_folder
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import (
    Frame,
    FrameResult,
    Source,
    SourceInfo,
    SourceReport,
)

OnFrame = Callable[[int, FrameResult], None]


class TrackingStopped(Exception):  # noqa: N818 - not an error: a person pressed Stop
    """Raised by a job's `on_frame` to stop it; its results so far are kept."""


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
