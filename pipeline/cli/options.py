"""Options shared by several commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskstream.pipeline.errors import ConfigError


class Preset(StrEnum):
    """Name of a configuration that comes with the package."""

    FAST = "fast"
    BALANCED = "balanced"
    QUALITY = "quality"


ConfigOption = Annotated[Path | None, typer.Option(help="YAML configuration (see configs/).")]
PresetOption = Annotated[
    Preset | None, typer.Option(help="A ready-made configuration instead of --config.")
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a configuration key."),
]
ModelOption = Annotated[str | None, typer.Option(help="Model name, folder or checkpoint.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda or auto.")]
EngineOption = Annotated[
    str | None,
    typer.Option(help="openvino, onnxruntime (docs/guide/tensorrt.md), or auto: as the model is."),
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        help="Detector whose boxes begin and support objects: an ONNX or OpenVINO graph (YOLO, "
        "DETR, SSD)."
    ),
]
DetectionsOption = Annotated[
    Path | None,
    typer.Option(help="Detections of another detector instead: COCO JSON, or JSON lines (.jsonl)."),
]
TextOption = Annotated[
    str | None,
    typer.Option(help="Find what words name, 'a dog. a red car'; --detector is a folder then."),
]
ClassesOption = Annotated[
    str | None, typer.Option(help="Classes of the detector to track: person,car.")
]
LabelsOption = Annotated[
    str | None,
    typer.Option(help="Names of the detector's classes: a,b,c or a file; default: its metadata."),
]
EveryOption = Annotated[
    int | None,
    typer.Option(min=1, help="Frames between two runs of the detector (8); live: at least."),
]
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


def preset_or_config(preset: Preset | None, config: Path | None) -> Path | None:
    """The file of a preset, or the given one. Raises `ConfigError` if both are given."""
    from maskstream.pipeline.config import SHIPPED

    if preset is None:
        return config
    if config is not None:
        raise ConfigError("--preset and --config exclude each other")
    return SHIPPED / f"{preset}.yaml"
