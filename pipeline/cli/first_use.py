"""A checkpoint in the place of a model: quantized on first use, on what pictures there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.types import RgbImage

IMAGES_MIN = 8
"""With fewer of the user's own, the demo's clip gives the rest: the result is kept for good."""


def with_model_folder(config: PipelineConfig, source: str | None = None) -> PipelineConfig:
    """Put a model folder in the place of a checkpoint that is to run on the CPU.

    On first use that quantizes the checkpoint on frames of `source`, a video or pictures; None (a
    camera, say): of the demo's clip. Raises `ModelError` and `SourceError`.
    """
    from maskstream.pipeline.models.open import names_checkpoint
    from maskstream.pipeline.models.resolve import resolve_model
    from maskstream.pipeline.segmenter.devices import choose_device

    if not names_checkpoint(config.model) or choose_device(config.device) == "cuda":
        return config
    folder = resolve_model(config.model, lambda count: _images(source, count), _echo)
    return config.model_copy(update={"model": str(folder)})


def _images(source: str | None, count: int) -> Sequence[RgbImage]:
    from maskstream.pipeline.cli.run import demo_clip
    from maskstream.pipeline.quantization.calibration import calibration_images

    own = [] if source is None else calibration_images(Path(source), count)
    if len(own) >= IMAGES_MIN:
        return own
    _echo(f"on {count - len(own)} frames of the demo's clip: there are {len(own)} of your own")
    return own + calibration_images(demo_clip(), count - len(own))


def _echo(sentence: str) -> None:
    typer.echo(sentence, err=True)
