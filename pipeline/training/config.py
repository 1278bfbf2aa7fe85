"""Configuration of a training run (`configs/train/*.yaml`)."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.cache import cache_folder
from pipeline.config import describe
from pipeline.errors import ConfigError


class TrainConfig(BaseModel):
    """Every key of a training configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str = "lite"
    data: Path
    source_weights: dict[str, float] = Field(default_factory=dict)
    whole_sources: tuple[str, ...] = ()
    held_back_percent: int = Field(6, ge=0, le=50)
    seed: int = 0
    steps: int = Field(..., ge=1)
    warmup_steps: int = Field(150, ge=0)
    batch: int = Field(6, ge=1)
    objects: int = Field(5, ge=1, le=64)
    rounds: int = Field(2, ge=1, le=10)
    long_side: int = Field(384, multiple_of=32)
    shapes: tuple[tuple[int, int], ...] = ((384, 384), (384, 288), (288, 384), (224, 384))
    lr_backbone: float = 2e-4
    lr: float = 8e-4
    weight_decay: float = 0.05
    clip_norm: float = 2.0
    ema_decay: float = 0.998
    checkpoint_every: int = 100
    validate_every: int = 400
    init_from: Path | None = None
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Where checkpoints go: `out`, or the user's cache."""
        return self.out or cache_folder("train", self.name)


def load_train_config(file: Path) -> TrainConfig:
    """Read a training configuration. Raises `ConfigError`."""
    try:
        return TrainConfig.model_validate(yaml.safe_load(file.read_text()))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(describe(error)) from error
