"""Commands `run` and `demo`: segment a video into a mask store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskstream.pipeline.cli.detector_options import DetectorOptions
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ClassesOption,
    ConfigOption,
    DetectionsOption,
    DetectorOption,
    DeviceOption,
    EndOption,
    EngineOption,
    EveryOption,
    FpsOption,
    LabelsOption,
    ModelOption,
    OverridesOption,
    PresetOption,
    QuietOption,
    StartOption,
    StrideOption,
    TextOption,
    preset_or_config,
)
from maskstream.pipeline.cli.report import print_summary
from maskstream.pipeline.cli.run_request import RunRequest, run_request, run_with_progress
from maskstream.pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(run)
    app.command()(demo)


def run(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Video file, image folder or pattern.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Mask store to write (OUT.zarr, or a URL).")
    ],
    config: ConfigOption = None,
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts JSON: clicks, boxes, masks.")
    ] = None,
    seed: Annotated[
        bool | None,
        typer.Option(
            "--seed/--no-seed",
            help="Also find objects; default: only without prompts and detector.",
        ),
    ] = None,
    detector: DetectorOption = None,
    detections: DetectionsOption = None,
    text: TextOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    every: EveryOption = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Also write a video with masks drawn.")
    ] = None,
    contact: Annotated[
        Path | None, typer.Option("--contact-sheet", help="Also write a contact sheet (PNG).")
    ] = None,
    start: StartOption = None,
    end: EndOption = None,
    stride: StrideOption = 1,
    backward: Annotated[
        bool, typer.Option("--backward", help="Also track objects to frames before their prompt.")
    ] = False,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Blend masks between keyframes from both; default for files.",
        ),
    ] = None,
    fps: FpsOption = None,
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Make whole pictures of interlaced video (bwdif).")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted store.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Track objects through a video and store their masks."""
    if overwrite and resume:
        raise ConfigError("--overwrite and --resume exclude each other")
    run_request(
        RunRequest(
            source=source,
            output=output,
            mode="overwrite" if overwrite else "resume" if resume else "create",
            config=preset_or_config(preset, config),
            overrides=overrides or (),
            model=ModelOptions(model, device, engine),
            prompts=prompts,
            seed=seed,
            detector=DetectorOptions(detector, detections, text, classes, labels, every),
            overlay=overlay,
            contact=contact,
            start=start,
            end=end,
            stride=stride,
            backward=backward,
            refine=refine,
            fps=fps,
            deinterlace=deinterlace,
            as_json=json,
            quiet=quiet,
        )
    )


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
) -> None:
    """Find and track objects on an example clip; write store, overlay and contact sheet."""
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.prompts import NO_PROMPTS
    from maskstream.pipeline.runs.outputs import RunOutputs
    from maskstream.pipeline.sources import open_source
    from maskstream.pipeline.sources.demo import demo_clip

    clip = open_source(demo_clip())
    folder.mkdir(parents=True, exist_ok=True)
    outputs = RunOutputs(
        folder / "masks.zarr", folder / "overlay.mp4", folder / "contact.png", "overwrite"
    )
    summary = run_with_progress(Pipeline.from_config(), clip, outputs, NO_PROMPTS)
    print_summary(summary, folder)
