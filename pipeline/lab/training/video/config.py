"""Configuration of a training of the memory (`configs/train/video/memory.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from maskstream.pipeline.lab.training.config import CachedTrainConfig, load_config_as


class VideoTrainConfig(CachedTrainConfig):
    """Every key of a training of the memory; unknown keys are an error.

    data: folder of `<source>/{images,masks,cutouts}`. encoder: embedded model whose features are
    trained on. sequences: number of training sequences, whose features are cached on disk.
    frames: of a sequence.
    init_from: file of averaged weights to start from. reference_cells, recent_cells: maximum of
    cells remembered per frame; reference_step, recent_step: stride of the cells away from objects.
    recent: number of recent frames that are read. propagated_share: odds that the propagated mask
    is an input. int8_rounding: values and head are trained with the rounding of INT8.
    presence_weight, dice_weight: weights of losses.
    """

    sequences: int = Field(3600, ge=1)
    sequence_seed: int = 0
    frames: int = Field(5, ge=2)
    init_from: Path | None = None
    steps: int = Field(5000, ge=1)
    warmup: int = Field(200, ge=1)
    lr: float = Field(1e-3, gt=0)
    clip_norm: float = Field(2.0, gt=0)
    reference_cells: int = Field(768, ge=1)
    recent_cells: int = Field(384, ge=1)
    reference_step: int = Field(2, ge=1)
    recent_step: int = Field(4, ge=1)
    recent: int = Field(2, ge=1)
    propagated_share: float = Field(0.7, ge=0, le=1)
    int8_rounding: bool = False
    presence_weight: float = Field(0.2, ge=0)
    dice_weight: float = Field(1.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"


def load_video_config(file: Path) -> VideoTrainConfig:
    """Read a configuration. Raises `ConfigError`."""
    return load_config_as(VideoTrainConfig, file, {})
