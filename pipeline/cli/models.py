"""Model commands: `weights list | get | path | import`, `quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.weights.registry import Checkpoint


def register(app: typer.Typer) -> None:
    """Register the commands."""
    weights = typer.Typer(help="List, download and import published checkpoints.")
    weights.command("list")(list_weights)
    weights.command("get")(get_weights)
    weights.command("path")(path_of_weights)
    weights.command("import")(import_weights)
    app.add_typer(weights, name="weights", no_args_is_help=True)
    app.command()(quantize)


def list_weights(
    addresses: Annotated[
        bool, typer.Option("--addresses", help="Only names and addresses, one a line.")
    ] = False,
) -> None:
    """List the published checkpoints, their licenses and whether they are in the cache."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from maskstream.pipeline.weights.registry import Registry

    registry = Registry.published()
    if addresses:
        for entry in registry.entries():
            typer.echo(f"{entry.name} {entry.url}")
        return
    table = Table("name", "size", "here", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("license", "source"):
        table.add_column(column, overflow="fold")
    for entry in registry.entries():
        size = "" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:.0f} MB"
        here = "yes" if registry.path_of(entry.name).is_file() else ""
        table.add_row(entry.name, size, here, entry.terms, entry.source.removeprefix("https://"))
    Console().print(table)


def get_weights(name: Annotated[str, typer.Argument(help="A name of `weights list`.")]) -> None:
    """Download a checkpoint (resumes an interrupted download) and print its path."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from maskstream.pipeline.weights.registry import Registry

    registry = Registry.published()
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        path = registry.get(name, lambda done, total: bar.update(task, completed=done, total=total))
    _say_terms(registry.entry(name))
    typer.echo(path)


def path_of_weights(name: Annotated[str, typer.Argument(help="A name of `weights list`.")]) -> None:
    """Print the path of a checkpoint in the cache, whether or not it exists."""
    from maskstream.pipeline.weights.registry import Registry

    typer.echo(Registry.published().path_of(name))


def import_weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint file.")],
    name: Annotated[str | None, typer.Option(help="Its name, if it is not recognized.")] = None,
) -> None:
    """Copy a checkpoint file to the cache and print its recognized name."""
    from maskstream.pipeline.models.resolve import require_training_extra
    from maskstream.pipeline.weights.registry import Registry

    require_training_extra("recognizing a checkpoint")
    registry = Registry.published()
    entry = registry.import_file(file, name)
    _say_terms(entry)
    typer.echo(f"{entry.name}: {registry.path_of(entry.name)}")


def quantize(
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint file, or a downloaded name of `weights list`.")
    ],
    calibration: Annotated[Path, typer.Option(help="Video or image folder to calibrate on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")],
    method: Annotated[
        str, typer.Option(help="nncf, or tinysam: closer to FP32 (docs/guide/quantization.md).")
    ] = "nncf",
    frames: Annotated[int, typer.Option(min=1, help="Number of calibration images.")] = 32,
    architecture: Annotated[
        str | None, typer.Option(help="Architecture of the file, if not clear from its keys.")
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="With nncf: report the error of each layer alone."),
    ] = False,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights: skip the accuracy gate.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write it even if it fails the gate.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Quantize a checkpoint to an INT8 model folder; refused if inaccurate or not faster."""
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("quantizing")
    from maskstream.pipeline.models.checkpoint import load_network
    from maskstream.pipeline.models.find import find_checkpoint
    from maskstream.pipeline.output_paths import check_outputs
    from maskstream.pipeline.quantization.calibration import calibration_images
    from maskstream.pipeline.quantization.gate import Gate
    from maskstream.pipeline.quantization.quantize import METHODS, write_folder
    from maskstream.pipeline.quantization.quantize import quantize as quantize_checkpoint

    if method not in METHODS:
        raise ConfigError(f"--method is one of {', '.join(METHODS)}, not {method}")
    path, known = find_checkpoint(checkpoint)
    check_outputs([output], [path, calibration])
    model = load_network(path, architecture or known)
    made = quantize_checkpoint(
        model,
        calibration_images(calibration, 2 * frames),
        method=method,
        gate=None if force else Gate(trained=not untrained),
        source=path.name,
        threads=threads,
        sensitivity=sensitivity,
        report=_echo,
    )
    write_folder(made, output)
    figures = made.comparison
    typer.echo(
        f"{output}: mask IoU {figures.mask_iou:.4f}, embedding cosine {figures.cosine:.4f}, "
        f"encoder {figures.encoder_speedup:.2f}x and decoder {figures.decoder_speedup:.2f}x FP32"
    )


def _say_terms(entry: Checkpoint) -> None:
    if not entry.commercial:
        _echo(f"{entry.name} may not be used commercially: {entry.terms}, see {entry.source}")


def _echo(sentence: str) -> None:
    typer.echo(sentence, err=True)
