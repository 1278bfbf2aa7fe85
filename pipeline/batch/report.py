"""The report of a batch: a table in Parquet with a row for each task that ended.

`OUT/report.parquet` is a folder of parts, which pandas, pyarrow, DuckDB and Spark read as one
table. Parts are written as tasks end, so a killed driver loses the last minute at most; every run
of the batch adds its own, named by the column `run`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from maskstream.pipeline.batch.driver import Listener
from maskstream.pipeline.batch.tasks import BatchJob, Outcome, Task
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.extras import need
from maskstream.pipeline.store.open_place import open_place

NAME = "report.parquet"
_ROWS_PER_PART = 10_000
_SECONDS_PER_PART = 60.0


class Report(Listener):
    """Writes the report below `job.out`; close it at the end.

    now: clock in seconds since 1970.

    Raises:
        MissingExtraError: pyarrow is not installed.
        StoreError: the output folder cannot be written; also raised later.
    """

    def __init__(self, job: BatchJob, now: Callable[[], float] = time.time) -> None:
        install = "pip install 'maskstream[batch]'"
        self._arrow = need("pyarrow", "the report of a batch", install)
        self._parquet = need("pyarrow.parquet", "the report of a batch", install)
        self._job = job
        self._now = now
        self._place = open_place(f"{job.out.rstrip('/')}/{NAME}")
        stamp = datetime.fromtimestamp(now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        self.run = f"{stamp}-{uuid4().hex[:6]}"
        self._rows: list[dict[str, Any]] = []
        self._parts = 0
        self._written_at = now()

    def ended(self, task: Task, outcome: Outcome, tries: int) -> None:
        """Add a row."""
        self._rows.append(
            {
                "run": self.run,
                "source": task.source,
                "output": task.name,
                "state": str(outcome.state),
                "failure": None if outcome.failure is None else str(outcome.failure),
                "error": outcome.error or None,
                "tries": tries,
                "seconds": outcome.seconds,
                "frames": outcome.frames,
                "frames_run": outcome.run,
                "objects": outcome.objects,
                "doubts": outcome.doubts,
                "host": outcome.host,
                "ended": datetime.fromtimestamp(self._now(), UTC),
                "versions": list(outcome.versions.items()),
            }
        )
        due = self._now() - self._written_at >= _SECONDS_PER_PART
        if due or len(self._rows) >= _ROWS_PER_PART:
            self._write()

    def close(self) -> None:
        """Write the rest."""
        if self._rows:
            self._write()

    def _write(self) -> None:
        table = self._arrow.Table.from_pylist(self._rows, schema=self._schema())
        data = io.BytesIO()
        self._parquet.write_table(table, data)
        try:
            self._place.replace(f"{self.run}-{self._parts:05d}.parquet", data.getvalue())
        except OSError as error:
            raise StoreError(
                f"The report {self._place.name} cannot be written: {error.strerror or error}."
            ) from error
        self._parts += 1
        self._rows = []
        self._written_at = self._now()

    def _schema(self) -> Any:
        arrow = self._arrow
        text, count = arrow.string(), arrow.int64()
        return arrow.schema(
            {
                "run": text,
                "source": text,
                "output": text,
                "state": text,
                "failure": text,
                "error": text,
                "tries": count,
                "seconds": arrow.float64(),
                "frames": count,
                "frames_run": count,
                "objects": count,
                "doubts": count,
                "host": text,
                "ended": arrow.timestamp("us", tz="UTC"),
                "versions": arrow.map_(text, text),
            }
        )
