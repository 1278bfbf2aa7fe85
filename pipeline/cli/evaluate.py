"""Command `eval images`: evaluate a model on images with ground-truth masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.evaluate_detector import detector
from maskstream.pipeline.cli.evaluate_papers import papers
from maskstream.pipeline.cli.evaluate_protocols import measure_mask_ap, prompts, wild
from maskstream.pipeline.cli.evaluate_shared import (
    AsJson,
    DeviceOption,
    HeldOutOption,
    ImageRootOption,
    LimitOption,
    SingleMaskOption,
    ThreadsOption,
    compact_table,
    image_progress,
    open_images,
    open_pool,
)
from maskstream.pipeline.cli.evaluate_video import video
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import EngineOption
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.lab.evaluation.examples import ImageSet
    from maskstream.pipeline.lab.evaluation.images import ImagesReport
    from maskstream.pipeline.lab.evaluation.mask_ap import MaskApReport
    from maskstream.pipeline.models.pool import SegmenterPool
    from maskstream.pipeline.objectness.model import ObjectnessModel

_MEASURES = {
    "box": "box",
    "box_small": "S",
    "box_medium": "M",
    "box_large": "L",
    "click1": "@1",
    "click2": "@2",
    "click3": "@3",
    "click5": "@5",
    "oracle3": "best\nof 3",
    "everything_recall": "recall",
    "zoom_box_without": "small\nbox",
    "zoom_box": "zoom\nbox",
    "zoom_click1_without": "small\n@1",
    "zoom_click1": "zoom\n@1",
}
"""Table headers, short enough for 80 columns."""

_TITLE = "mean IoU in %, from boxes (small, medium, large) and n clicks (@n)"


def register(app: typer.Typer) -> None:
    """Register the commands."""
    evaluate = typer.Typer(help="Evaluate a model against ground-truth masks.")
    evaluate.command()(images)
    evaluate.command()(video)
    evaluate.command()(detector)
    evaluate.command()(prompts)
    evaluate.command()(wild)
    evaluate.command()(papers)
    app.add_typer(evaluate, name="eval", no_args_is_help=True)


def images(
    data: Annotated[
        Path,
        typer.Option(help="Folder of <source>/{images,masks} (label maps), or COCO/LVIS JSON."),
    ],
    model: Annotated[
        str, typer.Option(help="Model name or folder, or a checkpoint, which runs in torch.")
    ] = "lite",
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option(help="Also run everything mode, on at most 10 images a source.")
    ] = True,
    head: Annotated[
        bool,
        typer.Option("--head/--no-head", help="Everything mode with the objectness head, or not."),
    ] = True,
    zoom: Annotated[
        bool,
        typer.Option("--zoom", help="Also prompt small objects in a crop of their own."),
    ] = False,
    held_out: HeldOutOption = 0,
    limit: LimitOption = None,
    sheets: Annotated[
        Path | None,
        typer.Option(help="Folder for contact sheets of every source's best and worst masks."),
    ] = None,
    image_root: ImageRootOption = None,
    detections: Annotated[
        Path | None, typer.Option(help="COCO results JSON: prompt with its boxes, for mask AP.")
    ] = None,
    single_mask: SingleMaskOption = False,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Mean IoU from boxes and clicks and recall of everything mode, or COCO's mask AP."""
    request = ImagesRequest(
        data=data,
        model=model,
        as_json=as_json,
        everything=everything,
        head=head,
        zoom=zoom,
        held_out=held_out,
        limit=limit,
        sheets=sheets,
        image_root=image_root,
        detections=detections,
        single_mask=single_mask,
    )
    _evaluate(open_pool(ModelOptions(model, device, engine), threads), request)


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """Parameters of `eval images`.

    head: use the objectness head where it can read the model. held_out: percent of scenes. limit:
    images per source. sheets: folder for contact sheets. single_mask: with detections only.
    """

    data: Path
    model: str
    as_json: bool
    everything: bool
    head: bool
    zoom: bool
    held_out: int
    limit: int | None
    sheets: Path | None
    image_root: Path | None
    detections: Path | None
    single_mask: bool


def _evaluate(pool: SegmenterPool, request: ImagesRequest) -> None:
    data = open_images(
        request.data, request.image_root, held_out=request.held_out, limit=request.limit
    )
    if request.detections is not None:
        report = measure_mask_ap(
            pool,
            data,
            request.detections,
            request.model,
            single_mask=request.single_mask,
            hidden=request.as_json,
        )
        if request.as_json:
            typer.echo(json.dumps(report.to_json()))
        else:
            _print_ap(report)
    elif request.single_mask:
        raise ConfigError("--single-mask is for --detections")
    else:
        _score(pool, data.sets, request)


def _score(pool: SegmenterPool, sets: Sequence[ImageSet], request: ImagesRequest) -> None:
    from maskstream.pipeline.lab.evaluation.images import evaluate_images
    from maskstream.pipeline.lab.evaluation.sheets import AnswerSheets

    drawn = AnswerSheets() if request.sheets is not None else None
    with image_progress(sum(len(s.items) for s in sets), hidden=request.as_json) as on_image:
        report = evaluate_images(
            pool,
            sets,
            model=request.model,
            everything=request.everything,
            head=_head(request),
            zoom=request.zoom,
            sheets=drawn,
            on_image=on_image,
        )
    if drawn is not None and request.sheets is not None:
        drawn.write(request.sheets)
    if request.as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print_images(report)


def _head(request: ImagesRequest) -> ObjectnessModel | None:
    """The head, if it is wanted and can read the features of the model."""
    from maskstream.pipeline.models.find import find_model, names_checkpoint
    from maskstream.pipeline.models.head import open_head_of

    if not (request.everything and request.head) or names_checkpoint(request.model):
        return None
    return open_head_of(find_model(request.model))


def _print_images(report: ImagesReport) -> None:
    from rich.console import Console

    shown = {key: title for key, title in _MEASURES.items() if key in report.macro}
    table = compact_table("source")
    for header in ("objects\n/images", *shown.values()):
        table.add_column(header, justify="right", no_wrap=True)

    def add(name: str, objects: int, images: int, values: Mapping[str, float]) -> None:
        cells = [f"{100 * values[key]:.1f}" if key in values else "" for key in shown]
        table.add_row(name, f"{objects}/{images}", *cells)

    sources = report.sources.values()
    for name, scores in report.sources.items():
        add(name, scores.objects, scores.images, scores.values)
    table.add_section()
    add("macro", sum(s.objects for s in sources), sum(s.images for s in sources), report.macro)
    console = Console()
    console.print(f"{report.model}: {_TITLE}\n")
    console.print(table)
    if report.excluded:
        console.print(f"skipped, without an object to prompt: {', '.join(report.excluded)}")
    console.print(f"{report.seconds:.0f} s, peak memory {report.peak_mb:.0f} MiB")


def _print_ap(report: MaskApReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in report.values.items():
        table.add_row(name.replace("_", " "), f"{value:.3f}")
    table.add_row("images", str(report.images))
    table.add_row("detections", str(report.detections))
    table.add_row("seconds", f"{report.seconds:.0f}")
    console = Console()
    console.print(f"{report.model}: mask AP from given boxes")
    console.print(table)
