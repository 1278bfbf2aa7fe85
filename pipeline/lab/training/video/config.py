"""Configuration of a training of the memory (`configs/train/video/memory.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.lab.training.config import load_config_as
from maskstream.pipeline.weights.cache import cache_folder


class VideoTrainConfig(BaseModel):
    """Every key of a training of the memory; unknown keys are an error.

    data: folder of `<source>/{images,masks,cutouts}`. encoder: embedded model whose features are
    trained on. sequences: number of training sequences, whose features are cached on disk.
    frames: of a sequence.
    init_from: file of averaged weights to start from. reference_cells, recent_cells: maximum of
    cells remembered per frame; reference_step, recent_step: stride of the cells away from objects.
    recent: number of recent frames that are read. propagated_share: odds that the propagated mask
    is an input. presence_weight, dice_weight: weights of losses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    data: Path
    encoder: str = "lite"
    sequences: int = Field(3600, ge=1)
    sequence_seed: int = 0
    frames: int = Field(5, ge=2)
    init_from: Path | None = None
    steps: int = Field(5000, ge=1)
    warmup: int = Field(200, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float = Field(2.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    seed: int = 0
    reference_cells: int = Field(768, ge=1)
    recent_cells: int = Field(384, ge=1)
    reference_step: int = Field(2, ge=1)
    recent_step: int = Field(4, ge=1)
    recent: int = Field(2, ge=1)
    propagated_share: float = Field(0.7, ge=0, le=1)
    presence_weight: float = Field(0.2, ge=0)
    dice_weight: float = Field(1.0, ge=0)
    checkpoint_every: int = Field(200, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the checkpoint and the cached sequences are: `out`, or the user's cache."""
        return self.out or cache_folder("train", self.name)


def load_video_config(file: Path) -> VideoTrainConfig:
    """Read a configuration. Raises `ConfigError`."""
    return load_config_as(VideoTrainConfig, file, {})
