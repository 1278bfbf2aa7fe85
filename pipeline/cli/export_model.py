"""The command `export-model`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from maskstream.pipeline.errors import ConfigError, StoreExistsError

CHECK_IMAGES = 8


class ModelFormat(StrEnum):
    """Format of exported models."""

    ONNX = "onnx"


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command("export-model")(export_model)


def export_model(
    model: Annotated[
        str, typer.Argument(help="Embedded model, model folder, checkpoint, or its name.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    format_: Annotated[ModelFormat, typer.Option("--format", help="Format.")] = ModelFormat.ONNX,
    int8: Annotated[
        bool, typer.Option("--int8", help="INT8 as Q/DQ for TensorRT (docs/guide/tensorrt.md).")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Video or images to quantize a checkpoint on, with --int8."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Video or images on which to compare masks with OpenVINO in FP32."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an exported model.")
    ] = False,
) -> None:
    """Write a model for other runtimes: ONNX files with their metadata, and model.yaml."""
    from maskstream.pipeline.models.find import find_model, holds_onnx, names_checkpoint
    from maskstream.pipeline.models.onnx_folder import need_onnx
    from maskstream.pipeline.output_paths import check_outputs

    need_onnx()
    from maskstream.pipeline.models.export_onnx import export_onnx
    from maskstream.pipeline.quantization.calibration import calibration_images

    check_outputs([output], [model, calibration, check])
    if check is not None and names_checkpoint(model):
        raise ConfigError(f"--check compares a model folder with its ONNX files, not {model}")
    if calibration is not None and not (int8 and names_checkpoint(model)):
        raise ConfigError("--calibration is for a checkpoint with --int8")
    if check is not None and not check.exists():
        raise ConfigError(f"there is no {check} to check on")
    if output.exists() and not (overwrite and holds_onnx(output)):
        hint = "replace it with --overwrite" if holds_onnx(output) else "give another"
        raise StoreExistsError(f"The output {output} exists already: {hint}.")

    files = export_onnx(
        model,
        output,
        int8=int8,
        images=None if calibration is None else partial(calibration_images, calibration),
        report=lambda sentence: typer.echo(sentence, err=True),
    )
    for file in files:
        typer.echo(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    if check is not None:
        from maskstream.pipeline.models.onnx_parity import compare_with_openvino

        found = compare_with_openvino(
            find_model(model), output, calibration_images(check, CHECK_IMAGES)
        )
        typer.echo(
            f"{found.masks} masks against OpenVINO in FP32: mean IoU {found.mean_iou:.4f}, least "
            f"{found.least_iou:.4f}, embedding cosine {found.cosine:.5f}"
        )
