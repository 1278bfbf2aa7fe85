"""Commands that read mask stores: `info`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)


def info(
    store: Annotated[Path, typer.Argument(metavar="OUT.zarr", help="A mask store.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Say what is in a mask store: source, model, frames, objects."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.store import MaskStore

    masks = MaskStore(store)
    objects = masks.objects()
    if json:
        typer.echo(
            json_format.dumps(
                {
                    "source": masks.source.name,
                    "size_hw": masks.source.size_hw,
                    "frames": len(masks),
                    "complete": masks.complete,
                    "model": masks.attributes.get("model"),
                    "objects": [
                        {
                            "id": o.id,
                            "first_frame": o.first_index,
                            "last_frame": o.last_index,
                            "frames": o.frames_seen,
                            "mean_score": round(o.mean_score, 4),
                        }
                        for o in objects
                    ],
                }
            )
        )
        return
    height, width = masks.source.size_hw
    model = masks.attributes.get("model", {})
    console = Console()
    console.print(f"source   {masks.source.name}, {width}x{height}", highlight=False)
    console.print(f"model    {model.get('name')} ({model.get('hash')})", highlight=False)
    state = "complete" if masks.complete else "not complete: run again with --resume to go on"
    console.print(f"frames   {len(masks)}, {state}", highlight=False)
    table = Table("object", "first frame", "last frame", "frames", "mean confidence")
    for found in objects:
        table.add_row(
            str(found.id),
            str(found.first_index),
            str(found.last_index),
            str(found.frames_seen),
            f"{found.mean_score:.2f}",
        )
    console.print(table)
