"""The command line. Commands import their modules when they run, so that `--help` is fast."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from maskstream.pipeline.cli import batch as batch_commands
from maskstream.pipeline.cli import bench as bench_commands
from maskstream.pipeline.cli import config as config_commands
from maskstream.pipeline.cli import evaluate as evaluate_commands
from maskstream.pipeline.cli import everything as everything_commands
from maskstream.pipeline.cli import export as export_commands
from maskstream.pipeline.cli import export_model as export_model_commands
from maskstream.pipeline.cli import live as live_commands
from maskstream.pipeline.cli import models as model_commands
from maskstream.pipeline.cli import run as run_commands
from maskstream.pipeline.cli import store as store_commands
from maskstream.pipeline.cli import train as train_commands
from maskstream.pipeline.cli import ui as page_commands
from maskstream.pipeline.errors import ConfigError, MaskstreamError

RENAMED_OPTIONS = {
    "--contact": "--contact-sheet",
    "--given": "--boxes",
    "--held-back": "--held-out",
    "--pictures": "--images",
}
"""Renamed options of version 0.1.0, by old name."""

app = typer.Typer(
    name="maskstream",
    help="Track objects through video: masks with stable identities, stored in Zarr.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _commands in (
    run_commands,
    batch_commands,
    live_commands,
    everything_commands,
    store_commands,
    model_commands,
    export_model_commands,
    export_commands,
    train_commands,
    bench_commands,
    evaluate_commands,
    page_commands,
    config_commands,
):
    _commands.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from maskstream import __version__

        typer.echo(f"maskstream {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log progress and details.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def _check_renamed(arguments: Sequence[str]) -> None:
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in RENAMED_OPTIONS:
            raise ConfigError(f"{option} is now named {RENAMED_OPTIONS[option]}")


def main() -> None:
    """Run the command line; errors are one sentence on standard error and a non-zero exit."""
    try:
        _check_renamed(sys.argv[1:])
        app()
    except MaskstreamError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
