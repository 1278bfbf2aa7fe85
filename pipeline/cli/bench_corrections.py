"""Command `bench corrections`: masks with errors, corrected by simulated clicks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.options import ConfigOption
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.lab.bench.correction_cases import CorrectionCase
    from maskstream.pipeline.lab.bench.corrections import CorrectionsReport, Share


def corrections(
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos with masks, as `eval video --data`.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of <source>/{images,masks} (label maps).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    model: Annotated[str, typer.Option(help="Model name, folder or checkpoint.")] = "lite",
    held_out: Annotated[
        int,
        typer.Option(min=0, max=50, help="Only the scenes held out from training, in percent."),
    ] = 6,
    images: Annotated[int, typer.Option(min=1, help="Images per source, evenly spaced.")] = 6,
    clicks: Annotated[int, typer.Option(min=1, help="Maximum of clicks on a mask (NoC).")] = 20,
    config: ConfigOption = None,
) -> None:
    """Correct wrong masks by simulated clicks: how often one helps or harms, and NoC@85.

    The masks are those of the tracker on videos, and of prompts on images.
    """
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.correction_cases import image_cases, video_cases
    from maskstream.pipeline.lab.bench.corrections import bench_corrections
    from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
    from maskstream.pipeline.lab.evaluation.video.folders import find_clips
    from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener

    if videos is None and data is None:
        raise ConfigError("give --videos, --data or both")
    settings = load_config(config, [f"model={model}"])
    pool = SegmenterPool(segmenter_opener(settings))
    cases: list[Iterator[CorrectionCase]] = []
    if videos is not None:
        cases.append(video_cases(settings, find_clips(videos).clips, _echo))
    if data is not None:
        sets = find_label_maps(data, held_out_percent=held_out, images=images)
        cases.append(image_cases(pool.for_size, sets, _echo))
    report = bench_corrections(model, pool.for_size, chain(*cases), max_clicks=clicks)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print(report)


def _print(report: CorrectionsReport) -> None:
    """Print one table per kind of cases."""
    from rich.console import Console
    from rich.table import Table

    from maskstream.pipeline.lab.bench.corrections import LOWERED_GOAL, NOC_IOU, RAISED_GOAL, WORSE

    console = Console()
    for kind, figures in report.kinds.items():
        table = Table(
            title=f"{report.model}, {kind}: {figures.cases} masks of {figures.scenes} scenes, IoU "
            f"{figures.iou_before:.3f}",
            title_justify="left",
        )
        for column in ("method", "raised, %", f"lowered by > {WORSE}, %", "IoU after a click"):
            table.add_column(column)
        table.add_column(f"clicks to {NOC_IOU}")
        table.add_column("reached, %")
        for name, row in figures.methods.items():
            table.add_row(
                name,
                _percent(row.raised),
                _percent(row.lowered),
                f"{row.iou.mean:.3f} ({row.iou.low:.3f} to {row.iou.high:.3f})",
                f"{row.noc.mean:.1f} ({row.noc.low:.1f} to {row.noc.high:.1f})",
                _percent(row.reached),
            )
        console.print(table)
    console.print(
        f"goals of local corrections: raised {100 * RAISED_GOAL:.0f} %, lowered "
        f"{100 * LOWERED_GOAL:.0f} %: {'reached' if report.reached else 'not reached'}"
    )


def _percent(share: Share) -> str:
    return f"{100 * share.mean:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _echo(name: str) -> None:
    typer.echo(name, err=True)
