"""`bench batch`: a batch whose tasks do nothing, for the driver's memory and the cost of a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskstream.pipeline.batch.driver import Driver, Listener, Totals
from maskstream.pipeline.batch.inputs import tasks_of
from maskstream.pipeline.batch.report import NAME, Report
from maskstream.pipeline.batch.tasks import BatchJob, Executor, OpenWork, Outcome, State, Task, Work
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.live.status import resident_mb

_SAMPLES = 10
_VERSIONS: Mapping[str, str] = {"maskstream": "0"}


@dataclass(frozen=True, slots=True)
class OpenNothing:
    """Makes work that does nothing. See `OpenWork`."""

    def __call__(self) -> Work:
        """See `OpenWork`."""
        return do_nothing


def do_nothing(task: Task) -> Outcome:
    """The outcome of a task, at once."""
    return Outcome(State.DONE, frames=1, run=1, versions=_VERSIONS)


@dataclass(slots=True)
class BatchBench:
    """Result of the simulation.

    start_s: until the first task ended, when the workers have begun. seconds: from then on.
    resident_mb: of the driver after each tenth of the rows, MiB. report_mb: size of the report.
    """

    rows: int
    start_s: float = 0.0
    seconds: float = 0.0
    resident_mb: list[float] = field(default_factory=list)
    report_mb: float = 0.0

    @property
    def task_us(self) -> float:
        """Time of the driver for each task, microseconds."""
        return 1e6 * self.seconds / max(1, self.rows - 1)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"task_us": self.task_us}


class _Samples(Listener):
    """Notes the driver's memory after each tenth of the rows."""

    def __init__(self, bench: BatchBench) -> None:
        self._bench = bench
        self._every = max(1, bench.rows // _SAMPLES)
        self._begun = time.perf_counter()

    def tick(self, totals: Totals) -> None:
        """Take a sample when it is due."""
        bench = self._bench
        if totals.ended and not bench.start_s:
            bench.start_s = time.perf_counter() - self._begun
        if totals.ended >= self._every * (len(bench.resident_mb) + 1):
            bench.resident_mb.append(round(resident_mb(), 1))


def bench_batch(rows: int, open_executor: Callable[[OpenWork], Executor]) -> BatchBench:
    """Run a manifest of `rows` videos that do not exist with tasks that do nothing.

    The manifest, the planner, the executor and the report are those of a batch.
    """
    bench = BatchBench(rows)
    with TemporaryDirectory(prefix="maskstream-bench-") as folder:
        manifest = Path(folder) / "rows.csv"
        with manifest.open("w") as file:
            file.write("input,output\n")
            file.writelines(
                f"s3://films/{n:07d}.mp4,{n // 1000:04d}/{n:07d}\n" for n in range(rows)
            )
        report = Report(BatchJob(folder, PipelineConfig()))
        executor = open_executor(OpenNothing())
        begun = time.perf_counter()
        try:
            Driver(executor, [report, _Samples(bench)]).run(tasks_of([str(manifest)]))
        finally:
            executor.close()
        bench.seconds = time.perf_counter() - begun - bench.start_s
        report.close()
        parts = (Path(folder) / NAME).iterdir()
        bench.report_mb = round(sum(part.stat().st_size for part in parts) / 2**20, 1)
    return bench
