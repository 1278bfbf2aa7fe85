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
_ROWS_KEPT_MAX = 20_000  # that could not be written and are tried again
_SECONDS_PER_PART = 60.0


class Report(Listener):
    """Writes the report below `job.out`; close it at the end.

    Rows that cannot be written are kept and tried again with the next part, the last
    `_ROWS_KEPT_MAX` of them. now: clock in seconds since 1970.

    Raises:
        MissingExtraError: pyarrow is not installed.
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
        self._tried_at = now()
        self._kept = 0  # rows that could not be written yet
        self._dropped = 0
        self._problem = ""

    def ended(self, task: Task, outcome: Outcome, tries: int) -> None:
        """Add a row."""
        self._rows.append(
            {
                "run": self.run,
                "source": valid_text(task.source),
                "output": valid_text(task.name),
                "state": str(outcome.state),
                "failure": None if outcome.failure is None else str(outcome.failure),
                "error": valid_text(outcome.error) or None,
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
        due = self._now() - self._tried_at >= _SECONDS_PER_PART
        if due or len(self._rows) - self._kept >= _ROWS_PER_PART:
            self._write()

    def close(self) -> None:
        """Write the rest. Raises `StoreError` if rows could not be written."""
        if self._rows:
            self._write()
        missing = self._dropped + len(self._rows)
        if missing:
            raise StoreError(
                f"The report {self._place.name} cannot be written: {self._problem}; it lacks "
                f"{missing} videos, which the same words again add."
            )

    def _write(self) -> None:
        self._tried_at = self._now()
        table = self._arrow.Table.from_pylist(self._rows, schema=self._schema())
        data = io.BytesIO()
        self._parquet.write_table(table, data)
        try:
            self._place.replace(f"{self.run}-{self._parts:05d}.parquet", data.getvalue())
        except OSError as error:
            self._problem = error.strerror or str(error)
            excess = max(0, len(self._rows) - _ROWS_KEPT_MAX)
            del self._rows[:excess]
            self._dropped += excess
        else:
            self._parts += 1
            self._rows = []
        self._kept = len(self._rows)

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


def valid_text(text: str) -> str:
    """A text that can be printed and stored: what is not UTF-8 in a name is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
