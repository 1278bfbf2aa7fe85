"""Commands that measure: `bench models`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.bench.models import BenchReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
    bench.callback()(_bench)
    bench.command()(models)
    app.add_typer(bench, name="bench")


def _bench() -> None:
    """Measure speed on this machine."""


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quick: Annotated[bool, typer.Option(help="Fewer rounds, sizes and prompts.")] = False,
) -> None:
    """Compare the networks' speed with the original's in torch.

    The first run quantises them, which takes minutes; the result is kept in the cache.
    """
    from pipeline.bench.models import bench_models

    report = bench_models(quick=quick, progress=lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print(report)


def _print(report: BenchReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "part", "engine", "precision", "input", "prompts", "ms", "peak MiB")
    for row in report.rows:
        height, width = row.input_hw
        table.add_row(
            *(row.model, row.part, row.engine, row.precision, f"{width}x{height}"),
            str(row.prompts or ""),
            f"{row.median_ms:.1f}",
            "" if row.memory_mb is None else f"{row.memory_mb:.0f}",
        )
    ratios = Table("ratio", "times faster")
    for name, value in report.ratios.items():
        ratios.add_row(name, f"{value:.2f}")
    console = Console()
    console.print(table)
    console.print(ratios)
