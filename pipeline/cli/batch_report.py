"""Output of the command `batch`: a progress bar, or events as JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from maskstream.pipeline.batch.driver import Listener, Totals
from maskstream.pipeline.batch.report import valid_text
from maskstream.pipeline.batch.tasks import Failure, Outcome, State, Task

_PROGRESS_EVERY_S = 5.0
_NOT_REPORTED = ("state", "versions", "parts")  # of an outcome


class BatchProgress(Listener):
    """A progress bar over tasks: done, failed, running, frames a second in total, time left."""

    def __init__(self, bar: Progress, total: int | None) -> None:
        self._bar = bar
        self._started = time.monotonic()
        self._task = bar.add_task("videos", total=total, counts="")

    def retried(self, task: Task, outcome: Outcome, tries: int, delay_s: float) -> None:
        """Print why a task is tried again."""
        busy = outcome.failure is Failure.BUSY
        when = "It is waited for." if busy else f"Try {tries + 1} in {delay_s:.0f} s."
        self._print(f"{task.source}: {outcome.error} {when}")

    def ended(self, task: Task, outcome: Outcome, tries: int) -> None:
        """Print why a task failed."""
        if outcome.state is State.FAILED:
            self._print(f"failed: {task.source}: {outcome.error}")

    def tick(self, totals: Totals) -> None:
        """Move the bar."""
        rate = totals.frames / max(1e-9, time.monotonic() - self._started)
        counts = (
            f"{totals.done} done, {totals.skipped} complete before, {totals.failed} failed, "
            f"{totals.running} running, {rate:.1f} fps"
        )
        self._bar.update(self._task, completed=totals.ended, counts=counts)

    def _print(self, line: str) -> None:
        self._bar.console.print(valid_text(line), markup=False, highlight=False)


@contextmanager
def batch_progress(total: int | None, *, hidden: bool) -> Iterator[BatchProgress]:
    """Show the progress of a batch on standard error. total: of tasks, if it is known."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    )
    with bar:
        yield BatchProgress(bar, total)


class JsonEvents(Listener):
    """Prints events as JSON lines: started, retried, done, skipped, failed, progress."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = self._reported = monotonic()

    def started(self, task: Task, tries: int) -> None:
        """Print the event."""
        _print("started", task, tries=tries)

    def retried(self, task: Task, outcome: Outcome, tries: int, delay_s: float) -> None:
        """Print the event."""
        failure = str(outcome.failure)
        _print("retried", task, tries=tries, failure=failure, error=outcome.error, delay_s=delay_s)

    def ended(self, task: Task, outcome: Outcome, tries: int) -> None:
        """Print the event; its name is the state."""
        values = {k: v for k, v in asdict(outcome).items() if k not in _NOT_REPORTED}
        _print(str(outcome.state), task, tries=tries, **values)

    def tick(self, totals: Totals) -> None:
        """Print the counts, frames a second in total and the time left, every few seconds."""
        now = self._monotonic()
        if now - self._reported < _PROGRESS_EVERY_S:
            return
        self._reported = now
        seconds = now - self._started
        event = {"event": "progress", **asdict(totals), "seconds": round(seconds, 1)}
        event["fps"] = round(totals.frames / seconds, 2)
        if totals.total is not None and totals.ended:
            event["left_s"] = round(seconds / totals.ended * (totals.total - totals.ended), 1)
        typer.echo(json.dumps(event))


def _print(event: str, task: Task, **values: object) -> None:
    where = {"event": event, "number": task.number, "source": task.source, "output": task.name}
    event_values = {
        key: valid_text(value) if isinstance(value, str) else value
        for key, value in (where | values).items()
    }
    typer.echo(json.dumps(event_values))
