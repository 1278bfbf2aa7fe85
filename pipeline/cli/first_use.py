"""Quantization of a checkpoint on first use, when it is given as the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.types import RgbImage

IMAGES_MIN = 8
"""With fewer images of the user's own, frames of the demo clip are added."""


def with_model_folder(config: PipelineConfig, source: str | None = None) -> PipelineConfig:
    """Replace a checkpoint in the configuration by its quantized model folder, to run on the CPU.

    On first use the checkpoint is quantized on frames of `source`, a video or images; None (for a
    camera): of the demo clip. Raises `ModelError` and `SourceError`, and `MissingExtraError` if the
    engine is not installed.
    """
    from maskstream.pipeline.models.find import names_checkpoint
    from maskstream.pipeline.models.onnx_folder import need_onnx
    from maskstream.pipeline.models.open import runs_in_torch
    from maskstream.pipeline.models.resolve import resolve_model
    from maskstream.pipeline.segmenter.onnx_segmenter import usable_providers

    if not names_checkpoint(config.model) or runs_in_torch(config):
        return config
    if config.engine == "onnxruntime":  # said before quantizing, which takes minutes
        usable_providers(config.device)
        need_onnx()
    folder = resolve_model(config.model, lambda count: _images(source, count), _echo)
    return config.model_copy(update={"model": str(folder)})


def _images(source: str | None, count: int) -> Sequence[RgbImage]:
    from maskstream.pipeline.quantization.calibration import calibration_images
    from maskstream.pipeline.sources.demo import demo_clip

    own = [] if source is None else calibration_images(Path(source), count)
    if len(own) >= IMAGES_MIN:
        return own
    _echo(f"with {count - len(own)} frames of the demo clip, because {len(own)} are your own")
    return own + calibration_images(demo_clip(), count - len(own))


def _echo(sentence: str) -> None:
    typer.echo(sentence, err=True)
