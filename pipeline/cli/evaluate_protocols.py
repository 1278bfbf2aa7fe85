"""Commands `eval prompts` and `eval wild`, and mask AP: the papers' protocols on any images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.evaluate_shared import (
    AsJson,
    DeviceOption,
    HeldOutOption,
    ImageData,
    ImageRootOption,
    LimitOption,
    SingleMaskOption,
    ThreadsOption,
    compact_table,
    image_progress,
    open_images,
    open_pool,
    progress_bar,
)
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import EngineOption
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.lab.evaluation.examples import ImageSet
    from maskstream.pipeline.lab.evaluation.mask_ap import MaskApReport
    from maskstream.pipeline.lab.evaluation.prompted import PromptedReport
    from maskstream.pipeline.lab.evaluation.wild import WildReport, WildSet
    from maskstream.pipeline.models.pool import SegmenterPool

_PROMPTS = {"box": "box", "click1": "1 click", "click3": "3 clicks", "click5": "5 clicks"}


def prompts(
    data: Annotated[
        Path,
        typer.Option(help="Folder of <source>/{images,masks} (label maps), or COCO/LVIS JSON."),
    ],
    image_root: ImageRootOption = None,
    model: Annotated[
        str, typer.Option(help="Model name or folder, or a checkpoint, which runs in torch.")
    ] = "lite",
    held_out: HeldOutOption = 0,
    limit: LimitOption = None,
    single_mask: SingleMaskOption = False,
    as_json: AsJson = False,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Mean IoU of every object from its box and from 1, 3 and 5 clicks, by size, as papers do."""
    images = open_images(data, image_root, held_out=held_out, limit=limit)
    pool = open_pool(ModelOptions(model, device, engine), threads)
    report = measure_prompts(pool, images.sets, model, single_mask=single_mask, hidden=as_json)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print_prompts(report)


def wild(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of <set>/valid/_annotations_min1cat.coco.json, as SGinW has, with "
            "<set>/detections.json in COCO's results format."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Model name or folder, or a checkpoint, which runs in torch.")
    ] = "lite",
    single_mask: SingleMaskOption = False,
    as_json: AsJson = False,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Mask AP of each set of segmentation in the wild (SGinW), and their mean."""
    from maskstream.pipeline.lab.evaluation.wild import find_wild_sets

    sets = find_wild_sets(data)
    pool = open_pool(ModelOptions(model, device, engine), threads)
    report = measure_wild(pool, sets, model, single_mask=single_mask, hidden=as_json)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print_wild(report)


def measure_prompts(
    pool: SegmenterPool, sets: Sequence[ImageSet], model: str, *, single_mask: bool, hidden: bool
) -> PromptedReport:
    """Run `evaluate_prompts` with a progress bar, unless it is hidden. Raises `SourceError`."""
    from maskstream.pipeline.lab.evaluation.prompted import evaluate_prompts

    with image_progress(sum(len(images.items) for images in sets), hidden=hidden) as on_image:
        return evaluate_prompts(pool, sets, model=model, single_mask=single_mask, on_image=on_image)


def measure_mask_ap(
    pool: SegmenterPool,
    data: ImageData,
    detections: Path,
    model: str,
    *,
    single_mask: bool,
    hidden: bool,
) -> MaskApReport:
    """Run `evaluate_detections` with a progress bar, unless it is hidden.

    Raises `SourceError`, `ConfigError` if the images have no COCO annotations.
    """
    from maskstream.pipeline.lab.evaluation.mask_ap import evaluate_detections, load_detections

    if data.annotations is None:
        raise ConfigError("--detections needs --data FILE.json")
    boxes = load_detections(detections)
    with image_progress(len(data.items), hidden=hidden) as on_image:
        return evaluate_detections(
            pool,
            data.annotations,
            data.items,
            boxes,
            model=model,
            single_mask=single_mask,
            on_image=on_image,
        )


def measure_wild(
    pool: SegmenterPool, sets: Sequence[WildSet], model: str, *, single_mask: bool, hidden: bool
) -> WildReport:
    """Run `evaluate_wild` with a progress bar, unless it is hidden. Raises `SourceError`."""
    from maskstream.pipeline.lab.evaluation.wild import evaluate_wild

    with progress_bar(len(sets), "sets", hidden=hidden) as advance:
        return evaluate_wild(
            pool, sets, model=model, single_mask=single_mask, on_set=lambda name: advance(name, 1)
        )


def _print_prompts(report: PromptedReport) -> None:
    from rich.console import Console

    table = compact_table("prompt")
    for size, count in report.objects.items():
        table.add_column(f"{size}\n{count} objects", justify="right", no_wrap=True)
    for prompt, by_size in report.values.items():
        table.add_row(_PROMPTS[prompt], *(f"{100 * by_size[size]:.1f}" for size in report.objects))
    console = Console()
    console.print(f"{report.model}: mean IoU in %\n")
    console.print(table)
    console.print(
        f"{report.images} images, {report.seconds:.0f} s, peak memory {report.peak_mb:.0f} MiB"
    )


def _print_wild(report: WildReport) -> None:
    from rich.console import Console

    table = compact_table("set")
    for header in ("AP", "images", "boxes"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in report.sets.items():
        ap = f"{100 * found.values['ap']:.1f}"
        table.add_row(name, ap, str(found.images), str(found.detections))
    table.add_section()
    table.add_row("mean", f"{100 * report.mean_ap:.1f}", str(report.images), "")
    console = Console()
    console.print(f"{report.model}: mask AP in %\n")
    console.print(table)
