"""Command `config`: print the configurations that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from maskstream.pipeline.cli.options import Preset


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(config)


def config(
    preset: Annotated[
        Preset | None, typer.Option(help="A preset instead of the default configuration.")
    ] = None,
) -> None:
    """Print the default configuration with comments, as a file for --config."""
    from maskstream.pipeline.config import SHIPPED

    file = SHIPPED / f"{preset or 'default'}.yaml"
    typer.echo(file.read_text("utf-8"), nl=False)
