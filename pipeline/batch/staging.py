"""The files of a task on the worker's disk: its video, which may be a copy, and its prompts."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.batch.files import (
    RemoteFile,
    exists,
    fetch,
    join,
    path_of,
    remote_identity,
    remote_size,
)
from maskstream.pipeline.batch.tasks import BatchJob, Step, Task
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.prompts import PromptLog, load_prompts
from maskstream.pipeline.runs.outputs import Origin
from maskstream.pipeline.sources import VideoFile, open_source
from maskstream.pipeline.sources.images import SUFFIXES as IMAGE_SUFFIXES
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.seek import counted_span
from maskstream.pipeline.sources.seekable import Seekable, open_seekable
from maskstream.pipeline.types import FrameReader, Source

RANGE_BYTES_MIN = 64 << 20
"""Bytes of a remote video from which a part of it is read by range; others are copied."""


class Staged:
    """A task's video and prompts. Copies are made when they are needed, and removed at the end.

    So of a remote video whose store is complete no copy is made. folder: for copies and other
    files of the task. Methods raise `SourceError`.
    """

    def __init__(self, job: BatchJob, task: Task) -> None:
        self._job = job
        self._task = task
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """A folder for files of the task."""
        scratch = self._job.scratch
        if scratch is not None:
            Path(scratch).mkdir(parents=True, exist_ok=True)
        made = TemporaryDirectory(dir=scratch, prefix="maskstream-")
        return Path(self._stack.enter_context(made))

    @cached_property
    def origin(self) -> Origin | None:
        """Of a remote video: its URL and identity."""
        url = self._task.source
        return Origin(url, remote_identity(url)) if is_url(url) else None

    @cached_property
    def path(self) -> Path:
        """The video on this disk."""
        source = self._task.source
        return fetch(source, self.folder) if is_url(source) else Path(source)

    @cached_property
    def source(self) -> Source:
        """What is run: the task's range of the video. A part reads little more than its frames."""
        task = self._task
        if task.step is not Step.PART:
            return self._opened(task.start, task.end)
        first, end = task.parts[0]
        source = self._opened(first, end)
        if not first or not isinstance(source, VideoFile):
            return source
        return self._stack.enter_context(counted_span(source, range(first, end)))

    def _opened(self, start: str | int | None, end: str | int | None) -> Source:
        """A range of the video, read from a copy or, if `_reads_by_range`, where it is."""
        url, threads = self._task.source, self._job.config.threads.decode
        if is_url(url) and self._reads_by_range(is_part=(start, end) != (None, None)):
            name, content = Path(path_of(url).name), partial(RemoteFile, url)
            return VideoFile(name, FrameRange.of(start, end), threads, content=content)
        return open_source(self.path, start=start, end=end, threads=threads)

    def _reads_by_range(self, *, is_part: bool) -> bool:
        """Whether a remote video is large and run in part, or too large for this disk."""
        url = self._task.source
        if path_of(url).suffix.lower() in IMAGE_SUFFIXES:
            return False
        size = remote_size(url)
        return (is_part and size >= RANGE_BYTES_MIN) or size > shutil.disk_usage(self.folder).free

    @cached_property
    def seekable(self) -> Seekable:
        """The whole video, with random access to its frames."""
        opened = open_seekable(self.path)
        self._stack.callback(opened.close)
        return opened

    def open(self) -> AbstractContextManager[FrameReader]:
        """See `Source`."""
        return self.source.open()

    @cached_property
    def prompts(self) -> Path | None:
        """The prompts file on this disk; None if there is none."""
        job, given = self._job, self._task.prompts
        if given is None and job.prompts_dir is not None:
            beside = join(job.prompts_dir, f"{self._task.name}.json")
            given = beside if exists(beside) else None
        if given is None:
            return None
        if not is_url(given):
            return Path(given)
        folder = self.folder / "prompts"
        folder.mkdir()
        return fetch(given, folder)

    def log_of(self, prompts: Path) -> PromptLog:
        """Read the prompts. Raises `PromptError`."""
        log = load_prompts(prompts, self)
        if log.tracking:
            raise PromptError(f"{prompts} is a session of the page: replay it with `run --prompts`")
        return log
