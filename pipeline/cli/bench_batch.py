"""Command `bench batch`: tasks that do nothing, or a clip many times in many ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from maskstream.pipeline.batch.tasks import Executor, OpenWork
    from maskstream.pipeline.lab.bench.batch_clips import ClipsBench


def batch(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    rows: Annotated[int, typer.Option(min=10, help="Rows of the manifest.")] = 100_000,
    on: Annotated[str, typer.Option("--on", help="local, ray or ray://HOST:PORT.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes or actors.")] = 2,
    video: Annotated[
        Path | None,
        typer.Option(help="Instead: run this clip by hand, in processes and on nodes of Ray."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="With --video: how often.")] = 24,
    frames: Annotated[int, typer.Option(min=1, help="With --video: its first frames.")] = 24,
) -> None:
    """Run a manifest with tasks that do nothing: time of a task, and the driver's memory.

    With --video: seconds, frames a second and overhead of a clip many times, in all ways.
    """
    if video is not None:
        _clips(video, clips, frames, as_json=as_json)
        return
    from maskstream.pipeline.lab.bench.batch import bench_batch

    def open_executor(work: OpenWork) -> Executor:
        if on == "local":
            from maskstream.pipeline.batch.local import LocalPool

            return LocalPool(work, workers)
        from maskstream.pipeline.batch.on_ray import RayPlace, RayPool

        return RayPool(work, RayPlace(None if on == "ray" else on, cores=1, actors=workers))

    bench = bench_batch(rows, open_executor)
    if as_json:
        typer.echo(json.dumps(bench.to_json()))
        return
    typer.echo(
        f"{rows} rows on {on} with {workers} workers: first task after {bench.start_s:.1f} s, then "
        f"{bench.seconds:.1f} s, {bench.task_us:.0f} us a task; report {bench.report_mb} MiB"
    )
    sizes = ", ".join(f"{size:.0f}" for size in bench.resident_mb)
    typer.echo(f"resident memory of the driver after each tenth: {sizes} MiB")


def _clips(video: Path, clips: int, frames: int, *, as_json: bool) -> None:
    from maskstream.pipeline.lab.bench.batch_clips import bench_clips

    bench = bench_clips(video, clips, frames)
    if as_json:
        typer.echo(json.dumps(bench.to_json()))
    else:
        _print(bench)


def _print(bench: ClipsBench) -> None:
    table = Table("", "seconds", "frames a second", "overhead, s", "load average")
    for row in bench.rows:
        table.add_row(
            row.how,
            f"{row.seconds:.1f}",
            f"{bench.fps(row):.1f}",
            f"{bench.overhead_s(row):.1f}",
            f"{row.load:.1f}",
        )
    console = Console()
    console.print(f"{bench.clips} clips of {bench.frames} frames, {bench.cores} cores")
    console.print(table)
