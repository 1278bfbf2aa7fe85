"""Data of a batch: the job that all videos share, the task of each, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.runs.parts import Part

PART_MIN_S = 30.0


class Step(StrEnum):
    """What a worker does with a video: run it, or one of the steps of a video in parts."""

    RUN = "run"
    PLAN = "plan"
    PART = "part"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class Task:
    """One video of a batch, or a step of it.

    number: of the row in the inputs, from 0. source: path or URL. name: of the output, relative to
    the batch's output folder, without a suffix. prompts: path or URL of a prompts JSON. start, end:
    as for `open_source`. problem: why the row cannot be run, a sentence; "" if it can. split_shots:
    run it in parts; None: as the job says. parts: those to join, or the one to run. options: keys
    of the configuration that differ from the job's, `section.key=value`.
    """

    number: int
    source: str
    name: str
    prompts: str | None = None
    start: str | None = None
    end: str | None = None
    problem: str = ""
    split_shots: bool | None = None
    step: Step = Step.RUN
    parts: tuple[Part, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What all tasks of a batch have in common.

    out: folder or URL. config: as for a run without prompts. seed_prompted: also find objects where
    prompts are given. prompts_dir: folder or URL with `NAME.json` of tasks. exports: format names.
    overwrite: replace stores that were made in another way, if they were last written before the
    batch `began` (`check_out`). scratch: folder on the worker's disk
    for staged files; None: the system's. split_shots: run videos in parts of at least `part_min_s`
    seconds.
    """

    out: str
    config: PipelineConfig
    seed_prompted: bool = False
    prompts_dir: str | None = None
    exports: tuple[str, ...] = ()
    overwrite: bool = False
    scratch: str | None = None
    split_shots: bool = False
    part_min_s: float = PART_MIN_S
    began: float = math.inf

    def store_of(self, task: Task) -> str:
        """Path or URL of a task's mask store."""
        return f"{self.out.rstrip('/')}/{task.name}.zarr"

    def parts_of(self, task: Task) -> str:
        """Path or URL of the folder with the stores of a task's parts."""
        return f"{self.out.rstrip('/')}/{task.name}.parts"

    def part_store_of(self, task: Task, part: Part) -> str:
        """Path or URL of the mask store of a task's part."""
        return f"{self.parts_of(task)}/{part[0]:08d}-{part[1]:08d}.zarr"


class State(StrEnum):
    """How a task ended: run, complete already, or failed."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Failure(StrEnum):
    """Why a task failed, which decides whether it is tried again.

    FINAL: it would fail again. TRANSIENT: a disk or a service failed. BUSY: another process writes
    its store. MEMORY: out of memory. LOST: the worker died.
    """

    FINAL = "final"
    TRANSIENT = "transient"
    BUSY = "busy"
    MEMORY = "memory"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one try of a task.

    seconds: wall time on the worker. frames: in the store; run: of these, computed by this try.
    doubts: review items. error: a sentence, if it failed. versions: of the libraries. host: where.
    parts: of a plan, what is to be run; empty: the video as a whole. Of a video in parts, seconds
    are the sum of its steps.
    """

    state: State
    failure: Failure | None = None
    error: str = ""
    seconds: float = 0.0
    frames: int = 0
    run: int = 0
    objects: int = 0
    doubts: int = 0
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @classmethod
    def failed(cls, failure: Failure, error: str) -> Outcome:
        """A try that failed."""
        return cls(State.FAILED, failure, error)


class Work(Protocol):
    """Runs tasks in a worker, one at a time; it never raises."""

    def __call__(self, task: Task) -> Outcome:
        """Run one task."""
        ...


class OpenWork(Protocol):
    """Makes the `Work` of a worker, once, in its own process; it is pickled."""

    def __call__(self) -> Work:
        """Make it."""
        ...


class Executor(Protocol):
    """Where tasks run: a pool of processes, or a Ray cluster."""

    def free(self) -> int:
        """How many tasks can begin now."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task; only if one is free."""
        ...

    def wait(self, timeout_s: float) -> list[tuple[Task, Outcome]]:
        """Tasks that ended, at least one unless `timeout_s` passes first."""
        ...

    def close(self) -> None:
        """End the workers; what is running is abandoned, and its stores keep their commits."""
        ...
