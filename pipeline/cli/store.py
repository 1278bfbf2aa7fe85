"""Mask store commands: `info`, `rename`, `review`, `fsck`."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.options import ReplaceOption

if TYPE_CHECKING:
    from maskstream.pipeline.json_values import JsonObject
    from maskstream.pipeline.results.review import ReviewItem
    from maskstream.pipeline.store import MaskStore

StoreArgument = Annotated[str, typer.Argument(metavar="OUT.zarr", help="A mask store (or URL).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]


def register(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(info)
    app.command()(rename)
    app.command()(review)
    app.command()(fsck)


def info(
    store: StoreArgument,
    json: AsJson = False,
) -> None:
    """Print the contents of a mask store: source, model, frames, objects."""
    from maskstream.pipeline.store import MaskStore

    masks = MaskStore(store)
    if json:
        typer.echo(json_format.dumps(_info_json(masks)))
    else:
        _print_info(masks)


def _info_json(masks: MaskStore) -> JsonObject:
    captured = _captured(masks)
    return {
        "source": masks.source.name,
        "size_hw": [*masks.source.size_hw],
        "frames": len(masks),
        "complete": masks.complete,
        "clock": masks.source.clock,
        "captured_s": None if captured is None else [*captured],
        "last_frame": int(masks.indices[-1]) if len(masks) else None,
        "model": masks.attributes.get("model"),
        "objects": [
            {
                "id": o.id,
                "name": o.name,
                "class": o.label,
                "first_frame": o.first_index,
                "last_frame": o.last_index,
                "frames": o.frames_seen,
                "mean_score": round(o.mean_score, 4),
            }
            for o in masks.objects()
        ],
    }


def _print_info(masks: MaskStore) -> None:
    from rich.console import Console
    from rich.table import Table

    height, width = masks.source.size_hw
    model = masks.attributes.get("model")
    if isinstance(model, dict):
        model = f"{model.get('name')} ({model.get('hash')})"
    console = Console()
    console.print(f"source   {masks.source.name}, {width}x{height}", highlight=False)
    console.print(f"model    {model}", highlight=False)
    state = "complete" if masks.complete else "not complete: run again with --resume to continue"
    last = f", the last is frame {masks.indices[-1]}" if len(masks) else ""
    console.print(f"frames   {len(masks)}{last}, {state}", highlight=False)
    captured = _captured(masks)
    if captured is not None:
        first, until = (
            datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds") for at in captured
        )
        console.print(f"captured {first} to {until}", highlight=False)
    columns = ("first frame", "last frame", "frames", "mean confidence")
    table = Table("object", "name", "class", *columns)
    for found in masks.objects():
        table.add_row(
            str(found.id),
            found.name,
            found.label,
            str(found.first_index),
            str(found.last_index),
            str(found.frames_seen),
            f"{found.mean_score:.2f}",
        )
    console.print(table)


def _captured(masks: MaskStore) -> list[float] | None:
    """Capture times of the first and last frame of a live source, seconds since 1970."""
    times = masks.captured_s
    return [float(times[0]), float(times[-1])] if times is not None and len(times) else None


def rename(
    store: StoreArgument,
    object_id: Annotated[int, typer.Argument(metavar="OBJECT", help="Object id.")],
    name: Annotated[str, typer.Argument(help='New name; "" for none.')],
) -> None:
    """Rename an object of a mask store."""
    from pydantic import ValidationError

    from maskstream.pipeline.errors import ConfigError, PromptError
    from maskstream.pipeline.prompts import RenameEvent
    from maskstream.pipeline.store import MaskStore, append_events

    objects = {o.id: o for o in MaskStore(store).objects()}
    if object_id not in objects:
        known = ", ".join(map(str, objects)) or "none"
        raise ConfigError(
            f"There is no object {object_id} in the mask store {store}; it has {known}."
        )
    frame = objects[object_id].first_index
    try:
        event = RenameEvent(type="rename", frame=frame, object=object_id, name=name)
    except ValidationError as error:
        raise PromptError(f"The name {name!r} is not valid: {error.errors()[0]['msg']}.") from error
    append_events(store, [event.model_dump(mode="json")])


def review(
    store: StoreArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of items, the worst first.")] = 20,
    json: AsJson = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet (PNG) of the worst frames.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="With --contact-sheet: the video, if it has moved since the run."),
    ] = None,
    overwrite: ReplaceOption = False,
) -> None:
    """List the review items of a mask store, the worst first."""
    from maskstream.pipeline.output_paths import check_file, check_outputs
    from maskstream.pipeline.results.review import review_of
    from maskstream.pipeline.store import MaskStore

    masks = MaskStore(store)
    if contact_sheet is not None:
        check_outputs([contact_sheet], [store, source, masks.source.name])
        check_file(contact_sheet, "contact sheet", replace=overwrite)
    items = review_of(masks)[:top]
    if contact_sheet is not None:
        _draw_review(contact_sheet, masks, items, source or masks.source.name)
    if json:
        typer.echo(json_format.dumps([item.to_json() for item in items]))
    elif items:
        _print_review(items, masks)
    else:
        typer.echo("nothing to review")


def _print_review(items: Sequence[ReviewItem], masks: MaskStore) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("frame", "time", "object", "issue", "frames", "severity")
    for item in items:
        time = "" if item.pts is None else f"{float(item.pts * masks.source.time_base):.2f} s"
        issue = f"{item.reason}: {item.detail}" if item.detail else str(item.reason)
        if item.also:
            issue += f" (also {', '.join(item.also)})"
        span = str(item.first) if item.first == item.last else f"{item.first}-{item.last}"
        severity = f"{item.severity:.2f}"
        table.add_row(str(item.frame), time, str(item.object), issue, span, severity)
    Console().print(table)


def _draw_review(path: Path, masks: MaskStore, items: Sequence[ReviewItem], source: str) -> None:
    """Draw the worst frame of every review item, in frame order."""
    from maskstream.pipeline.rendering.contact_sheet import ContactSheet
    from maskstream.pipeline.sources import open_source

    if not items:
        return
    rows = {int(index): row for row, index in enumerate(masks.indices)}
    waiting = {item.frame for item in items}
    sheet = ContactSheet(path, count=len(waiting))
    with open_source(source, end=str(max(waiting) + 1)).open() as reader:
        for frame in reader:
            if frame.index in waiting:
                sheet.write(frame, masks.frame(rows[frame.index]))
    sheet.close(complete=True)


def fsck(
    store: StoreArgument,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Restore the tables; truncate the store before the first damaged frame.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Check every frame of a mask store and its tables; exit with 1 if there are problems."""
    from maskstream.pipeline.store import check_store, repair_store

    report = repair_store(store) if repair else check_store(store)
    if json:
        values = {"frames": report.frames, "problems": list(report.problems)}
        typer.echo(json_format.dumps(values))
    else:
        for problem in report.problems:
            typer.echo(problem)
        typer.echo(f"{report.frames} frames are intact")
    if report.problems:
        if not repair:
            typer.echo(
                f"{len(report.problems)} problems; --repair restores the tables and truncates "
                "the store before the first damaged frame, run --resume writes the rest again",
                err=True,
            )
        raise typer.Exit(1)
