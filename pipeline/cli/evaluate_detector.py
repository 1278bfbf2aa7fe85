"""Command `eval detector`: HOTA of runs with a simulated detector, beside boxes alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.evaluate_shared import compact_table
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ConfigOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    OverridesOption,
)
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.lab.evaluation.video.detector import DetectorReport


def detector(
    every: Annotated[
        str, typer.Option(help="Frames between two runs of the detector, separated by commas.")
    ] = "8,4,1",
    misses: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the objects that it does not find.")
    ] = 0.3,
    false: Annotated[float, typer.Option(min=0, help="False boxes a frame.")] = 0.5,
    jitter: Annotated[
        float, typer.Option(min=0, help="Deviation of edges, in sides of the box.")
    ] = 0.05,
    confusions: Annotated[
        float, typer.Option(min=0, max=1, help="Share of boxes with another class.")
    ] = 0.05,
    sequences: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these generated clips; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the detector's faults.")] = 0,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    config: ConfigOption = None,
    overrides: OverridesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run generated clips with a simulated detector: HOTA of its boxes with and without us."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.evaluation.video.detector import evaluate_detector
    from maskstream.pipeline.lab.evaluation.video.generated import SCENES, generated_clips
    from maskstream.pipeline.lab.evaluation.video.simulated_detector import Faults
    from maskstream.pipeline.lab.evaluation.video.sprites import SpriteImages

    wanted = SCENES if sequences is None else [n.strip() for n in sequences.split(",")]
    unknown = [name for name in wanted if name not in SCENES]
    if unknown:
        raise ConfigError(f"there is no clip {unknown[0]}; there are {', '.join(SCENES)}")
    chosen_model = ModelOptions(model, device, engine)
    report = evaluate_detector(
        with_model_folder(load_config(config, [*(overrides or ()), *chosen_model.settings])),
        [clip for clip in generated_clips(SpriteImages()) if clip.name in wanted],
        Faults(misses, false, jitter, confusions),
        every=_counts(every),
        seed=seed,
        on_run=lambda name: None if as_json else typer.echo(name, err=True),
    )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _print(report)


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if not counts or min(counts) < 1 or len(counts) != len(text.split(",")):
        raise ConfigError(f"--every takes numbers of frames, for example 8,4,1, not '{text}'")
    return counts


def _print(report: DetectorReport) -> None:
    from rich.console import Console

    table = compact_table("clip")
    methods = list(report.means)
    for method in methods:
        table.add_column(method.replace(", ", "\n"), justify="right", no_wrap=True)
    for name, scores in report.clips.items():
        table.add_row(name, *(f"{100 * scores[method].hota:.1f}" for method in methods))
    table.add_section()
    for row, label in enumerate(("mean HOTA", "mean DetA", "mean AssA")):
        table.add_row(label, *(f"{100 * report.means[method][row]:.1f}" for method in methods))
    table.add_row("switches", *(f"{report.means[method][3]:.2f}" for method in methods))
    console = Console()
    console.print("HOTA of boxes, %; DetA, AssA, identity switches a clip\n")
    console.print(table)
