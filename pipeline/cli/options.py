"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option(help="YAML configuration (see configs/).")]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a configuration key."),
]
ModelOption = Annotated[str | None, typer.Option(help="Model name, folder or checkpoint.")]
StartOption = Annotated[
    str | None, typer.Option(help="First frame: 120, 3.5s, 00:00:03.5 or timecode 00:00:03:12.")
]
EndOption = Annotated[str | None, typer.Option(help="Frame to stop before, like --start.")]
StrideOption = Annotated[int, typer.Option(min=1, help="Process every n-th frame.")]
FpsOption = Annotated[
    str | None,
    typer.Option("--fps", help="Frames per second of images: 24, or 24000/1001."),
]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
