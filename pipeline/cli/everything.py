"""Command `everything`: find objects on images or single video frames without prompts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.detector_options import DetectorOptions
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ClassesOption,
    DetectionsOption,
    DetectorOption,
    DeviceOption,
    EndOption,
    EngineOption,
    LabelsOption,
    ModelOption,
    ReplaceOption,
    StartOption,
    StrideOption,
    TextOption,
)
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.segmenter.everything import EverythingChoice
    from maskstream.pipeline.types import FrameResult, ObjectResult

PointsOption = Annotated[int, typer.Option(min=4, max=128, help="Points a side of the fine grid.")]
IouOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Minimum predicted IoU of a mask.")
]
StabilityOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Minimum stability score of a mask.")
]
DoneOption = Annotated[
    float | None, typer.Option(help="Mask logit above which the fine grid skips a point.")
]


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(everything)


def everything(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Image, video, image folder or pattern.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Label maps: a PNG for one frame, otherwise a folder."),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Images with the masks drawn, a PNG or a folder likewise.")
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="head (boxes, and points beside them), hierarchical (fine only where nothing was "
            "found), or plain. Default: head where the model has one."
        ),
    ] = None,
    points_per_side: PointsOption = 32,
    iou_min: IouOption = None,
    stability_min: StabilityOption = None,
    done_logit: DoneOption = None,
    start: StartOption = None,
    end: EndOption = None,
    stride: StrideOption = 1,
    detector: DetectorOption = None,
    detections: DetectionsOption = None,
    text: TextOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    overwrite: ReplaceOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line a frame.")] = False,
) -> None:
    """Find the objects of an image, or of each video frame separately, without prompts.

    Label maps are 16-bit grayscale PNGs: 0 is background, other values are objects; parts lie on
    top of whole objects. Thresholds default to the model's own (docs/measurements/seeding.md). With
    a detector, its boxes are the prompts instead of a grid, and objects have its classes.
    """
    from maskstream.pipeline.segmenter.everything import EverythingChoice

    _find(
        EverythingRequest(
            source=source,
            output=output,
            overlay=overlay,
            grid=grid,
            choice=EverythingChoice(points_per_side, iou_min, stability_min, done_logit),
            start=start,
            end=end,
            stride=stride,
            detector=DetectorOptions(detector, detections, text, classes, labels),
            model=ModelOptions(model, device, engine),
            overwrite=overwrite,
            as_json=as_json,
        )
    )


@dataclass(frozen=True, slots=True)
class EverythingRequest:
    """Parameters of `everything`. output, overlay: paths of label maps and of images with masks."""

    source: str
    output: Path | None
    overlay: Path | None
    grid: str | None
    choice: EverythingChoice
    start: str | None
    end: str | None
    stride: int
    detector: DetectorOptions
    model: ModelOptions
    overwrite: bool
    as_json: bool


def _find(request: EverythingRequest) -> None:
    """Find the objects of each frame separately. Raises `MaskstreamError`."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.detectors.detector import NamedFrames
    from maskstream.pipeline.detectors.open import open_detector
    from maskstream.pipeline.engine.stills import detected_frame_result, single_frame_result
    from maskstream.pipeline.models.find import is_graph
    from maskstream.pipeline.models.head import open_head_of
    from maskstream.pipeline.models.open import locate_model, open_segmenter
    from maskstream.pipeline.models.pool import SegmenterPool
    from maskstream.pipeline.output_paths import check_outputs
    from maskstream.pipeline.rendering.draw import draw
    from maskstream.pipeline.rendering.single_frame import ImageOutput
    from maskstream.pipeline.segmenter.everything import (
        GRIDS,
        EverythingChoice,
        find_everything,
    )
    from maskstream.pipeline.sources import open_source

    source, output, overlay = request.source, request.output, request.overlay
    if request.grid not in (None, *GRIDS):
        raise ConfigError(f"--grid is one of {', '.join(GRIDS)}, not {request.grid}")
    check_outputs([output, overlay], [source, *request.detector.inputs])
    labels, overlays = (None if p is None else ImageOutput(p) for p in (output, overlay))
    config = load_config(overrides=[*request.detector.settings, *request.model.settings])
    detector = open_detector(config.detector, threads=config.threads.inference)
    if detector is not None and (request.grid is not None or request.choice != EverythingChoice()):
        raise ConfigError("a detector's boxes are the prompts: omit the options of the grid")
    span = open_source(source, start=request.start, end=request.end, stride=request.stride)
    with span.open() as reader:
        for place in (labels, overlays):
            if place is not None:
                place.check(reader.info, overwrite=request.overwrite)
        config = with_model_folder(config, source)
        folder = locate_model(config)
        pool = SegmenterPool(lambda frame_hw: open_segmenter(config, folder, frame_hw))
        head = open_head_of(folder) if request.grid in (None, "head") else None
        if request.grid == "head" and head is None:
            raise ConfigError(f"--grid head needs an embedded model, not {config.model}")
        if request.grid is not None and is_graph(folder):
            raise ConfigError(f"--grid asks points, but {folder.name} finds all masks at once")
        grid = request.grid or ("hierarchical" if head is None else "head")
        named = NamedFrames(detector)
        for frame in reader:
            named.passed(frame)
            segmenter = pool.for_size(frame.size_hw)
            start_s = time.perf_counter()
            if detector is not None:
                detector.check(frame.size_hw)
                boxes = detector.detect(frame)
                prompts = len(boxes)
                result = detected_frame_result(frame, segmenter, boxes)
            else:
                settings = request.choice.settings(segmenter.card)
                features = segmenter.encode(frame)
                likely = head.propose(features, segmenter.geometry) if head is not None else None
                proposals, prompts = find_everything(segmenter, features, settings, grid, likely)
                result = single_frame_result(frame, proposals, segmenter.geometry)
            seconds = time.perf_counter() - start_s
            if labels is not None:
                labels.write(frame.index, result.labels)
            if overlays is not None:
                overlays.write(frame.index, draw(frame.rgb(), result))
            typer.echo(_line(result, prompts, seconds, as_json=request.as_json))
    named.check()
    if named.note:
        typer.echo(named.note, err=True)
    if reader.report.corrupt_packets:
        damage = f"{reader.report.corrupt_packets} damaged packets or images"
        typer.echo(f"{damage}: {'; '.join(reader.report.messages)}", err=True)


def _line(result: FrameResult, prompts: int, seconds: float, *, as_json: bool) -> str:
    count = len(result.objects)
    if not as_json:
        return f"frame {result.index}: {count} objects, {prompts} prompts, {seconds:.2f} s"
    objects = [_object(found) for found in result.objects]
    line = {"frame": result.index, "pts_s": result.pts_s, "prompts": prompts}
    return json.dumps(line | {"seconds": round(seconds, 3), "objects": objects})


def _object(found: ObjectResult) -> dict[str, object]:
    values = {
        "id": found.id,
        "box_xyxy": found.box_xyxy,
        "score": round(found.score, 4),
        "area": found.area,
    }
    if found.detector_score is None:
        return values
    return values | {"class": found.label, "detector_score": round(found.detector_score, 4)}
