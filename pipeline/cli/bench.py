"""Commands that measure: `bench models`, `bench rectangle`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.bench.models import BenchReport
    from pipeline.bench.rectangle import RectangleReport

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bench = typer.Typer(help="Measure the networks on this machine.", no_args_is_help=True)
    bench.command()(models)
    bench.command()(rectangle)
    app.add_typer(bench, name="bench")


def models(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and prompts.")] = False,
) -> None:
    """Compare the networks' speed with the original's in torch.

    The first run quantises them, which takes minutes; the result is kept in the cache.
    """
    from pipeline.quantization.resolve import require_training_extra

    require_training_extra("comparing with torch")
    from pipeline.bench.models import bench_models

    report = bench_models(quick=quick, progress=_say)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print_models(report)


def rectangle(
    as_json: AsJson = False,
    model: Annotated[
        str, typer.Option(help="Embedded model, model folder, or tinysam (random weights).")
    ] = "lite",
    clip: Annotated[Path | None, typer.Option(help="Video; the demo's if not given.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Frames of it.")] = 8,
) -> None:
    """Compare frames encoded as rectangles with frames padded to squares: embedding and masks."""
    from pipeline.bench.rectangle import bench_rectangle
    from pipeline.cli.run import demo_clip
    from pipeline.quantization.calibration import calibration_pictures

    folder, trained = _model_folder(model)
    frames = calibration_pictures(clip or demo_clip(), pictures)
    report = bench_rectangle(folder, frames, trained=trained, threads=os.cpu_count() or 1)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print_rectangle(report)


def _model_folder(model: str) -> tuple[Path, bool]:
    """Folder of a model, and whether it was trained."""
    from pipeline.segmenter.model import find_model

    if model != "tinysam":
        return find_model(model), True
    from pipeline.quantization.resolve import require_training_extra

    require_training_extra("making tinysam with random weights")
    from pipeline.bench.fill import filled_model
    from pipeline.bench.folders import model_folders

    return model_folders(filled_model(model), _say).fp32, False


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _print_models(report: BenchReport) -> None:
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


def _print_rectangle(report: RectangleReport) -> None:
    from rich.console import Console
    from rich.table import Table

    (height, width), (side, _) = report.rectangle_hw, report.square_hw
    cosines = Table("cells from the padded border", "cosine, mean", "lowest")
    for band in report.bands:
        name = str(band.first) if band.first == band.last else f"{band.first} to {band.last}"
        cosines.add_row(name, f"{band.mean:.4f}", f"{band.lowest:.4f}")
    masks = Table("prompts", "masks", "mask IoU, mean", "lowest tenth below")
    for kind, agreement in report.masks.items():
        masks.add_row(
            *(kind, str(agreement.masks)),
            *(f"{agreement.mean:.4f}", f"{agreement.lowest_tenth:.4f}"),
        )
    console = Console()
    console.print(
        f"{report.model}, {width}x{height} against {side}x{side}, {report.pictures} pictures: "
        f"cosine of the embedding {report.cosine:.4f}"
    )
    console.print(cosines)
    if report.masks:
        console.print(masks)
