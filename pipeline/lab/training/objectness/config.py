"""Configuration of a training of the objectness head (`configs/train/objectness/*.yaml`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from maskstream.pipeline.lab.training.config import CachedTrainConfig, load_config_as
from maskstream.pipeline.types import SizeHW


class ObjectnessTrainConfig(CachedTrainConfig):
    """Every key of a training of the objectness head; unknown keys are an error.

    data: folder of `<source>/{images,masks,cutouts}`. encoder: embedded model whose features are
    trained on. sizes_hw: input sizes, multiples of 32 with the encoder's long side. batches: number
    of training batches, whose features are cached on disk; batch: images of each. weights: factors
    on the odds of sources. partly_labeled: sources that label only some of the objects they show;
    their background counts by `partly_weight`. whole: sources whose labels together are an object,
    too. box_weight: of the boxes' loss. bf16: convolve in bfloat16, twice as fast on processors
    that can (`avx512_bf16`).
    """

    sizes_hw: tuple[SizeHW, ...] = ((288, 512), (384, 512), (512, 512), (512, 384))
    batches: int = Field(700, ge=1)
    batch: int = Field(8, ge=1)
    weights: dict[str, float] = Field({})
    partly_labeled: frozenset[str] = frozenset()
    partly_weight: float = Field(0.3, ge=0, le=1)
    whole: frozenset[str] = frozenset()
    paste: float = Field(0.5, ge=0, le=1)
    held_out_percent: int = Field(6, ge=0, le=50)
    steps: int = Field(4000, ge=1)
    warmup: int = Field(100, ge=1)
    lr: float = Field(2e-3, gt=0)
    clip_norm: float = Field(5.0, gt=0)
    box_weight: float = Field(2.0, ge=0)
    bf16: bool = False


def load_objectness_config(file: Path) -> ObjectnessTrainConfig:
    """Read a configuration. Raises `ConfigError`."""
    return load_config_as(ObjectnessTrainConfig, file, {})
