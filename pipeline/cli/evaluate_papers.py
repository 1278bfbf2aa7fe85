"""Command `eval papers`: what the papers publish, beside what is measured here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.evaluate_protocols import (
    measure_mask_ap,
    measure_prompts,
    measure_wild,
)
from maskstream.pipeline.cli.evaluate_shared import (
    AsJson,
    DeviceOption,
    HeldOutOption,
    ImageRootOption,
    LimitOption,
    SingleMaskOption,
    ThreadsOption,
    compact_table,
    open_images,
    open_pool,
)
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import EngineOption
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.lab.evaluation.papers import PaperRow

_HEADERS = {
    "ap": "AP",
    "box": "box",
    "click1": "@1",
    "click3": "@3",
    "click5": "@5",
    "small": "S",
    "medium": "M",
    "large": "L",
}
"""Headers of columns by their last part; @n: after n clicks; S, M, L: of the column before."""


def papers(
    data: Annotated[
        Path | None,
        typer.Option(help="Images to measure on: a folder of label maps, or COCO/LVIS JSON."),
    ] = None,
    image_root: ImageRootOption = None,
    detections: Annotated[
        Path | None, typer.Option(help="COCO results JSON for --data: also measure the mask AP.")
    ] = None,
    wild: Annotated[
        Path | None, typer.Option(help="Folder of the sets of SGinW: also measure their mean AP.")
    ] = None,
    models: Annotated[
        str, typer.Option("--model", metavar="A,B", help="Models to measure.")
    ] = "lite",
    held_out: HeldOutOption = 0,
    limit: LimitOption = None,
    single_mask: SingleMaskOption = False,
    as_json: AsJson = False,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Print the papers' tables; with data also what is measured here, in the same columns."""
    from maskstream.pipeline.lab.evaluation.papers import (
        PUBLISHED,
        mask_ap_row,
        prompted_row,
        wild_row,
    )
    from maskstream.pipeline.lab.evaluation.wild import find_wild_sets

    if data is None and (image_root is not None or detections is not None):
        raise ConfigError("--image-root and --detections are for --data")
    images = open_images(data, image_root, held_out=held_out, limit=limit) if data else None
    if detections is not None and (images is None or images.annotations is None):
        raise ConfigError("--detections needs --data FILE.json")
    sets = find_wild_sets(wild) if wild else None
    rule = ", single masks" if single_mask else ""
    rows: list[PaperRow] = []
    names = models.split(",") if data or wild else []
    pools = {name: open_pool(ModelOptions(name, device, engine), threads) for name in names}
    for model in names:
        pool = pools.pop(model)
        if data is not None and images is not None:
            found = measure_prompts(
                pool, images.sets, model, single_mask=single_mask, hidden=as_json
            )
            rows.append(prompted_row(found, f"{data.stem}{rule}"))
            if detections is not None:
                ap = measure_mask_ap(
                    pool, images, detections, model, single_mask=single_mask, hidden=as_json
                )
                rows.append(mask_ap_row(ap, f"{data.stem}, boxes of {detections.stem}{rule}"))
        if wild is not None and sets is not None:
            report = measure_wild(pool, sets, model, single_mask=single_mask, hidden=as_json)
            rows.append(wild_row(report, f"{wild.name}{rule}"))
    rows = [*PUBLISHED, *rows]
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
    else:
        _print(rows)


def _print(rows: Sequence[PaperRow]) -> None:
    """Print a table for each protocol, data and origin, those measured here last."""
    from rich.console import Console

    from maskstream.pipeline.lab.evaluation.papers import COLUMNS, Protocol

    console = Console()
    for protocol in Protocol:
        console.print(f"\n[bold]{protocol.value}[/bold], in %")
        of_protocol = [row for row in rows if row.protocol is protocol]
        for (data, origin), group in groupby(of_protocol, lambda row: (row.data, row.origin)):
            table = compact_table("model")
            for column in COLUMNS[protocol]:
                header = _HEADERS[column.rpartition("_")[2]]
                table.add_column(header, justify="right", no_wrap=True)
            for row in group:
                values = (row.values.get(column) for column in COLUMNS[protocol])
                table.add_row(row.model, *("" if v is None else f"{v:.1f}" for v in values))
            console.print(f"\n{data}\n[italic]{origin}[/italic]", highlight=False)
            console.print(table)
