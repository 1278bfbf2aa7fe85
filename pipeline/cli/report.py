"""Output of the command line: progress bar, summary table, JSON line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from maskstream.pipeline.engine.pipeline import RunSummary
    from maskstream.pipeline.types import FrameResult


class FrameProgress:
    """A progress bar over frames, with rate and time left."""

    def __init__(self, bar: Progress, name: str = "frames") -> None:
        self._bar = bar
        self._name = name
        self._task: TaskID | None = None

    def start(self, total: int | None) -> None:
        """Start the bar. total: number of frames, if known."""
        self._task = self._bar.add_task(self._name, total=total, objects=0, rate="")

    def beside(self, name: str) -> FrameProgress:
        """Add a second bar, for another pass over the frames."""
        return FrameProgress(self._bar, name)

    def advance(self, result: FrameResult) -> None:
        """Count one frame."""
        if self._task is None:
            return
        speed = self._bar.tasks[self._task].speed
        rate = "" if speed is None else f"{speed:.1f} fps"
        self._bar.update(self._task, advance=1, objects=len(result.objects), rate=rate)


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[FrameProgress]:
    """Show a progress bar on standard error."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[objects]} objects"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    )
    with bar:
        yield FrameProgress(bar)


def print_summary(summary: RunSummary, output: Path | str) -> None:
    """Print the summary table of a finished run."""
    table = Table(title=str(output), show_header=False, title_justify="left")
    table.add_row("frames", str(summary.frames))
    table.add_row("objects", str(summary.objects))
    table.add_row("frames per second", f"{summary.fps:.1f}")
    table.add_row("keyframes", str(summary.keyframes))
    for stage, seconds in summary.stage_s.items():
        if stage == "load":
            table.add_row("load model", f"{1000 * seconds:.0f} ms, once")
        else:
            table.add_row(f"{stage}", f"{1000 * seconds / max(1, summary.frames):.2f} ms a frame")
    table.add_row("peak memory", f"{summary.peak_memory_mb:.0f} MiB")
    if summary.report.corrupt_packets:
        table.add_row("corrupt packets", str(summary.report.corrupt_packets))
    if summary.dropped:
        table.add_row("dropped frames", str(summary.dropped))
    Console().print(table)
    for note in summary.report.notes:
        Console().print(f"note: {note}", highlight=False)


def summary_json(summary: RunSummary, output: Path | str) -> str:
    """Format the summary as one line of JSON."""
    frames = max(1, summary.frames)
    return json.dumps(
        {
            "output": str(output),
            "frames": summary.frames,
            "objects": summary.objects,
            "keyframes": summary.keyframes,
            "seconds": round(summary.seconds, 3),
            "fps": round(summary.fps, 2),
            "stage_ms": {k: round(1000 * v / frames, 3) for k, v in summary.stage_s.items()},
            "peak_memory_mb": round(summary.peak_memory_mb, 1),
            "corrupt_packets": summary.report.corrupt_packets,
            "dropped": summary.dropped,
            "notes": summary.report.notes,
        }
    )
