"""Command `bench batch`: a batch whose tasks do nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskstream.pipeline.batch.tasks import Executor, OpenWork


def batch(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    rows: Annotated[int, typer.Option(min=10, help="Rows of the manifest.")] = 100_000,
    on: Annotated[str, typer.Option("--on", help="local, ray or ray://HOST:PORT.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes or actors.")] = 2,
) -> None:
    """Run a manifest with tasks that do nothing: time of a task, and the driver's memory."""
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
