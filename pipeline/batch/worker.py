"""The work of a batch: one task is one run, as the command `run` makes it, then its exports.

A video in parts takes several tasks: `maskstream.pipeline.batch.splitting` hands them out.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace

from maskstream.pipeline.batch.exporting import export_all
from maskstream.pipeline.batch.failures import failure_of, outcome_of
from maskstream.pipeline.batch.files import remove
from maskstream.pipeline.batch.plans import kept_plan
from maskstream.pipeline.batch.staging import Staged
from maskstream.pipeline.batch.tasks import BatchJob, Failure, Outcome, State, Step, Task, Work
from maskstream.pipeline.config import PipelineConfig, overridden
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import StoreCorruptError, StoreError
from maskstream.pipeline.prompts import NO_PROMPTS
from maskstream.pipeline.runs.outputs import RunOutputs, library_versions, requested_span
from maskstream.pipeline.runs.part_joining import join_parts
from maskstream.pipeline.runs.parts import check_splittable
from maskstream.pipeline.runs.resume import PART_MIN_S
from maskstream.pipeline.store import MaskStore, check_writable
from maskstream.pipeline.store.age import touch, written_at
from maskstream.pipeline.tracking.refinement import check_refinable


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """Makes the work of a worker that runs the tasks of `job`. See `OpenWork`."""

    job: BatchJob

    def __call__(self) -> Work:
        """See `OpenWork`."""
        return Runs(self.job)


class Runs:
    """Runs tasks one after the other and keeps the networks loaded. See `Work`."""

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        # By the row's options and whether objects are found; those of the last options only.
        self._pipelines: dict[tuple[tuple[str, ...], bool], Pipeline] = {}
        self._versions = library_versions()
        self._steps = {
            Step.RUN: self._run,
            Step.PLAN: self._plan,
            Step.PART: self._run,
            Step.JOIN: self._join,
        }

    def __call__(self, task: Task) -> Outcome:
        """Run a task; an error becomes a failed outcome."""
        started = time.perf_counter()
        try:
            with Staged(self._job, task) as staged:
                outcome = self._steps[task.step](task, staged)
        except Exception as error:
            outcome = outcome_of(error)
        seconds = time.perf_counter() - started
        host = socket.gethostname()
        return replace(outcome, seconds=seconds, host=host, versions=self._versions)

    def _run(self, task: Task, staged: Staged) -> Outcome:
        """Run a video as a whole, or one part of it."""
        prompts = staged.prompts
        log = NO_PROMPTS if prompts is None else staged.log_of(prompts)
        pipeline = self._pipeline(task, seeded=prompts is None or self._job.seed_prompted)
        outputs = self._outputs(task, staged)
        outputs.prompts = log
        outputs.check([task.source, prompts])
        frames = self._finished(outputs, pipeline, task)
        run = 0
        if frames is None:
            check_writable(outputs.store, outputs.mode)
            before = _committed(outputs)
            pipeline.run(staged.source, lambda info: outputs.open(pipeline, info), log)
            run = outputs.committed - before
        return self._end(task, staged, outputs, run=run, is_new=frames is None)

    def _plan(self, task: Task, staged: Staged) -> Outcome:
        """Cut a video into parts, unless its store is complete; none if it is to be run whole."""
        if staged.prompts is not None:
            return Outcome(State.DONE)
        pipeline = self._pipeline(task, seeded=True)
        check_splittable(pipeline.config)
        whole, joined = self._outputs(task, staged), self._outputs(task, staged, is_joined=True)
        stored = MaskStore.open_if_exists(whole.store)
        if stored is not None:
            found = joined if PART_MIN_S in stored.span else whole
            if self._finished(found, pipeline, task) is not None:
                return self._end(task, staged, found, run=0, is_new=False)
        parts = kept_plan(self._job, task, staged, pipeline.config)
        if len(parts) < 2:
            return Outcome(State.DONE)
        joined.check([task.source])
        self._finished(joined, pipeline, task)
        check_writable(joined.store, joined.mode)
        return Outcome(State.DONE, parts=tuple(parts))

    def _join(self, task: Task, staged: Staged) -> Outcome:
        """Join the stores of a video's parts, which are complete, and remove them."""
        job = self._job
        pipeline = self._pipeline(task, seeded=True)
        outputs = self._outputs(task, staged, is_joined=True)
        is_new = self._finished(outputs, pipeline, task) is None
        if is_new:
            check_writable(outputs.store, outputs.mode)
            with staged.open() as reader:
                info = reader.info
            parts = [MaskStore(job.part_store_of(task, part)) for part in task.parts]
            join_parts(outputs, pipeline, info, staged.seekable, parts)
        return self._end(task, staged, outputs, run=0, is_new=is_new)

    def _end(
        self, task: Task, staged: Staged, outputs: RunOutputs, *, run: int, is_new: bool
    ) -> Outcome:
        """Export a complete store, remove what it was made of, and describe it."""
        store = MaskStore(outputs.store)
        if task.step is not Step.PART:
            export_all(self._job, task, store, staged)
        if task.step in (Step.PLAN, Step.JOIN):
            remove(self._job.parts_of(task))
        return Outcome(
            State.DONE if is_new else State.SKIPPED,
            frames=len(store),
            run=run,
            objects=len(store.objects()),
            doubts=len(store.review or ()),
        )

    def _outputs(self, task: Task, staged: Staged, *, is_joined: bool = False) -> RunOutputs:
        """The outputs of a task. is_joined: of parts."""
        job = self._job
        place, start, end = job.store_of(task), task.start, task.end
        if task.step is Step.PART:
            place = job.part_store_of(task, task.parts[0])
            start, end = map(str, task.parts[0])
        part_min_s = job.part_min_s if is_joined else 0.0
        span = requested_span(self._config(task), start=start, end=end, part_min_s=part_min_s)
        return RunOutputs(place, mode="resume", span=span, origin=staged.origin)

    def _finished(self, outputs: RunOutputs, pipeline: Pipeline, task: Task) -> int | None:
        """Frames of the store if it is complete; else None, and `outputs.mode` is what to do."""
        try:
            frames = outputs.finished(pipeline, task.source)
        except StoreError as error:
            if not self._job.overwrite or failure_of(error) is not Failure.FINAL:
                raise
            self._check_older(outputs, error)
            outputs.mode = "overwrite"
            return None
        if frames is not None and self._job.overwrite:
            touch(outputs.store)  # for `_check_older` of another task
        return frames

    def _check_older(self, outputs: RunOutputs, error: StoreError) -> None:
        """Raise `StoreError` if this batch has written the store, or found it complete.

        error: why it is not the one that is wanted.
        """
        damaged = isinstance(error, StoreCorruptError)
        if not damaged and written_at(outputs.store) > self._job.began:
            raise StoreError(
                f"The mask store {outputs.store} was written in this batch for another video, "
                "range or prompts, so it is kept: give each video an output of its own."
            ) from error

    def _config(self, task: Task) -> PipelineConfig:
        """The configuration of a task. Raises `ConfigError`."""
        if not task.options:
            return self._job.config
        config = overridden(self._job.config, task.options)
        check_refinable(config)
        return config

    def _pipeline(self, task: Task, *, seeded: bool) -> Pipeline:
        """The pipeline that finds objects as configured, or none where prompts are given."""
        config = self._config(task)
        if not seeded:
            config = config.without_seeding()
        key = (task.options, config.seeding.enabled)
        if key not in self._pipelines:
            kept = ((), task.options)
            self._pipelines = {k: p for k, p in self._pipelines.items() if k[0] in kept}
            self._pipelines[key] = Pipeline(config)
        return self._pipelines[key]


def _committed(outputs: RunOutputs) -> int:
    """Frames that an earlier try left in the store and that this one keeps."""
    if outputs.mode == "overwrite":
        return 0
    store = MaskStore.open_if_exists(outputs.store)
    return 0 if store is None else len(store)
