"""Configuration of a training run (`configs/train/*.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskstream.pipeline.config import describe
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.weights.cache import cache_folder

Config = TypeVar("Config", bound=BaseModel)


class TeacherConfig(BaseModel):
    """The teacher network and the weights of the distillation losses (0 disables a loss).

    checkpoint: a file or a name that `--model` takes, of architecture `model`. long_side: of the
    teacher's own input, pixels. epoch_steps: batches repeat after this many steps, so that the
    teacher's features are computed once and then read from Zarr; 0: batches never repeat and the
    teacher runs at every step. embedding_distance: l1 as TinySAM, l2 as EfficientViT-SAM.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Path
    model: str
    long_side: int = Field(640, multiple_of=32)
    epoch_steps: int = Field(0, ge=0)
    embedding: float = Field(1.0, ge=0)
    embedding_distance: Literal["l1", "l2"] = "l1"
    token: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    hard_mask_weighting: bool = False


class CocoConfig(BaseModel):
    """A COCO-style annotation file and the folder of its images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotations: Path
    images: Path


class TrainConfig(BaseModel):
    """Every key of a training configuration; unknown keys are refused.

    max_points: maximum corrective points between two rounds; their number, from 1 on, is drawn at
    each step. hard_prompts: place each corrective point where the mask decoded from the points
    before it is wrong; false: anywhere in the object. centered_share: share of clicks at the center
    of the object or of the error region, where people click. box_jitter: noise on first boxes,
    relative to their size. proposal_share: share of first prompts that simulate a tracker's
    proposal. absent_share: share of those proposals whose object is not on the image. init_from:
    files of initial weights; the first that exists is used. augmentation: full, or flip: whole
    images of which half are mirrored. first_points: maximum positive points of a first prompt
    without a box. loss: balanced (focal loss normalized by its own weights, as for `lite`) or sam
    (20 focal by pixels + dice). square_consistency: weight of the distance (L1 of logits and
    embedding, soft IoU of masks) between a narrow image and the same image padded to a square.
    excluded_sources: sources that are never trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str = "lite"
    data: Path | None = None
    coco: dict[str, CocoConfig] = Field(default_factory=dict)
    excluded_sources: tuple[str, ...] = ()
    source_weights: dict[str, float] = Field(default_factory=dict)
    whole_sources: tuple[str, ...] = ()
    held_out_percent: int = Field(6, ge=0, le=50)
    seed: int = 0
    stage: Literal["embedding", "prompts"] = "prompts"
    steps: int = Field(..., ge=1)
    warmup_steps: int = Field(150, ge=0)
    batch: int = Field(6, ge=1)
    objects: int = Field(5, ge=1, le=64)
    rounds: int = Field(2, ge=1, le=10)
    hard_prompts: bool = True
    max_points: int = Field(1, ge=1, le=10)
    first_points: int = Field(1, ge=1, le=10)
    loss: Literal["balanced", "sam"] = "balanced"
    augmentation: Literal["full", "flip"] = "full"
    centered_share: float = Field(0.0, ge=0, le=1)
    box_jitter: float = Field(0.08, ge=0, le=1)
    proposal_share: float = Field(0.0, ge=0, le=1)
    absent_share: float = Field(0.0, ge=0, le=1)
    square_consistency: float = Field(0.0, ge=0)
    teacher: TeacherConfig | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    long_side: int = Field(384, multiple_of=32)
    shapes: tuple[tuple[int, int], ...] = ((384, 384), (384, 288), (288, 384), (224, 384))
    lr_backbone: float = 2e-4
    lr: float = 8e-4
    weight_decay: float = 0.05
    clip_norm: float = 2.0
    ema_decay: float = 0.998
    checkpoint_every: int = 100
    validate_every: int = 400
    init_from: tuple[Path, ...] = ()
    out: Path | None = None

    @model_validator(mode="after")
    def _teacher_for_embeddings(self) -> Self:
        if self.stage == "embedding" and self.teacher is None:
            raise ValueError("stage: embedding needs a teacher")
        return self

    @model_validator(mode="after")
    def _some_data(self) -> Self:
        if self.data is None and not self.coco:
            raise ValueError("data: give a folder of sources, or annotation files under coco")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the checkpoints: `out`, or a folder in the user's cache."""
        return self.out or cache_folder("train", self.name)


RENAMED_KEYS = {
    "most_points": "max_points",
    "gone_share": "absent_share",
    "left_out": "excluded_sources",
    "held_back_percent": "held_out_percent",
    "centred_share": "centered_share",
}
"""Keys of version 0.1.0 that were renamed, with their new names."""


def load_train_config(file: Path) -> TrainConfig:
    """Read a configuration of a segmenter's training. Raises `ConfigError`."""
    return load_config_as(TrainConfig, file, RENAMED_KEYS)


class CachedTrainConfig(BaseModel):
    """What trainings on cached features have in common; unknown keys are an error.

    encoder: embedded model whose features are trained on. out: folder of the checkpoint and of the
    cached features, default: in the user's cache.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    data: Path
    encoder: str = "lite"
    steps: int = Field(ge=1)
    warmup: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    seed: int = 0
    checkpoint_every: int = Field(200, ge=1)
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the checkpoint and the cached features are: `out`, or the user's cache."""
        return self.out or cache_folder("train", self.name)


def load_config_as(kind: type[Config], file: Path, renamed: Mapping[str, str]) -> Config:
    """Read a training configuration; keys of the file it `extends` are its defaults.

    renamed: current names of renamed keys. Raises `ConfigError`.
    """
    try:
        return kind.model_validate(_with_defaults(file))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(describe(error, renamed)) from error


def _with_defaults(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no keys")
    base = content.pop("extends", None)
    return (_with_defaults(file.parent / base) if base else {}) | content
