"""The work of a batch: one task is one run, as the command `run` makes it, then its exports."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from maskstream.pipeline.batch.failures import failure_of, outcome_of
from maskstream.pipeline.batch.files import (
    exists,
    fetch,
    is_url,
    join,
    remote_identity,
    send,
)
from maskstream.pipeline.batch.tasks import BatchJob, Failure, Outcome, State, Task, Work
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import PromptError, StoreError, StoreExistsError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.registry import find_format
from maskstream.pipeline.prompts import NO_PROMPTS, PromptLog, load_prompts
from maskstream.pipeline.runs.outputs import Origin, RunOutputs, library_versions, requested_span
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.store import MaskStore, check_writable
from maskstream.pipeline.types import FrameReader, Source


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
        self._pipelines: dict[bool, Pipeline] = {}  # by whether objects are found
        self._versions = library_versions()

    def __call__(self, task: Task) -> Outcome:
        """Run a task; an error becomes a failed outcome."""
        started = time.perf_counter()
        try:
            outcome = self._run(task)
        except Exception as error:
            outcome = outcome_of(error)
        seconds = time.perf_counter() - started
        host = socket.gethostname()
        return replace(outcome, seconds=seconds, host=host, versions=self._versions)

    def _run(self, task: Task) -> Outcome:
        job = self._job
        if job.scratch is not None:
            Path(job.scratch).mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=job.scratch, prefix="maskstream-") as folder:
            staged = Path(folder)
            video = _Video(task, staged, job.config.threads.decode)
            prompts = _prompts_file(job, task, staged)
            log = NO_PROMPTS if prompts is None else _load(prompts, video)
            pipeline = self._pipeline(seeded=prompts is None or job.seed_prompted)
            outputs = RunOutputs(
                job.store_of(task),
                mode="resume",
                span=requested_span(pipeline.config, start=task.start, end=task.end),
                prompts=log,
                origin=video.origin,
            )
            outputs.check([task.source, prompts])
            frames = _finished(outputs, pipeline, task.source, overwrite=job.overwrite)
            run = 0
            if frames is None:
                check_writable(outputs.store, outputs.mode)
                before = _committed(outputs)
                pipeline.run(video.source, lambda info: outputs.open(pipeline, info), log)
                run = outputs.committed - before
            store = MaskStore(outputs.store)
            for name in job.exports:
                _export(job, task, store, name, video, replaces=frames is None)
        return Outcome(
            State.DONE if frames is None else State.SKIPPED,
            frames=len(store),
            run=run,
            objects=len(store.objects()),
            doubts=len(store.review or ()),
        )

    def _pipeline(self, *, seeded: bool) -> Pipeline:
        """The pipeline that finds objects as configured, or none where prompts are given."""
        config = self._job.config
        if not seeded:
            config = config.without_seeding()
        key = config.seeding.enabled
        if key not in self._pipelines:
            self._pipelines[key] = Pipeline(config)
        return self._pipelines[key]


class _Video:
    """A task's video. A remote one is fetched when it is needed, so not for a complete store."""

    def __init__(self, task: Task, folder: Path, threads: int) -> None:
        """folder: for the copy of a remote video, and other files of the task."""
        self.folder = folder
        self._task = task
        self._threads = threads

    @cached_property
    def origin(self) -> Origin | None:
        """Of a remote video: its URL and identity."""
        url = self._task.source
        return Origin(url, remote_identity(url)) if is_url(url) else None

    @cached_property
    def path(self) -> Path:
        """The file on this disk."""
        source = self._task.source
        return fetch(source, self.folder) if is_url(source) else Path(source)

    @cached_property
    def source(self) -> Source:
        """What is run: the task's range of it."""
        task = self._task
        return open_source(self.path, start=task.start, end=task.end, threads=self._threads)

    def open(self) -> AbstractContextManager[FrameReader]:
        """See `Source`."""
        return self.source.open()


def _finished(
    outputs: RunOutputs, pipeline: Pipeline, source: str, *, overwrite: bool
) -> int | None:
    """Frames of the store if it is complete; else None, and `outputs.mode` is what to do."""
    try:
        return outputs.finished(pipeline, source)
    except StoreError as error:
        if not overwrite or failure_of(error) is not Failure.FINAL:
            raise
        outputs.mode = "overwrite"
        return None


def _committed(outputs: RunOutputs) -> int:
    """Frames that an earlier try left in the store and that this one keeps."""
    if outputs.mode == "overwrite":
        return 0
    store = MaskStore.open_if_exists(outputs.store)
    return 0 if store is None else len(store)


def _prompts_file(job: BatchJob, task: Task, staged: Path) -> Path | None:
    """The task's prompts file on this disk; None if it has none."""
    given = task.prompts
    if given is None and job.prompts_dir is not None:
        beside = join(job.prompts_dir, f"{task.name}.json")
        given = beside if exists(beside) else None
    if given is None:
        return None
    if not is_url(given):
        return Path(given)
    folder = staged / "prompts"
    folder.mkdir()
    return fetch(given, folder)


def _load(prompts: Path, source: Source) -> PromptLog:
    log = load_prompts(prompts, source)
    if log.tracking:
        raise PromptError(f"{prompts} is a session of the page: replay it with `run --prompts`")
    return log


def export_name(task: Task, name: str) -> str:
    """Name of a task's export below the output folder. Raises `ConfigError`."""
    return f"{task.name}.{name}{find_format(name).suffix}"


def _export(
    job: BatchJob, task: Task, store: MaskStore, name: str, video: _Video, *, replaces: bool
) -> None:
    """Export the store in a format; an export of a store that was complete already is kept."""
    wanted = find_format(name)
    target = join(job.out, export_name(task, name))
    is_whole = is_url(job.out) or wanted.suffix  # a folder may be unfinished
    if not replaces and is_whole and exists(target):
        return
    place = video.folder / Path(target).name if is_url(job.out) else Path(target)
    path = video.path if wanted.needs_video else None
    try:
        export_store(store, place, ExportChoice(name, overwrite=replaces, video=path))
    except StoreExistsError:
        if replaces:
            raise
        return
    if is_url(job.out):
        send(place, target)
