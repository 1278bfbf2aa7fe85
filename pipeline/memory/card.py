"""Contents of `memory.yaml`, which describes the embedded memory."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from maskstream.pipeline.errors import ModelError


class MemoryCard(BaseModel):
    """Contents of `memory.yaml`.

    encoder: name of the embedded model whose encoder the memory was trained on; encoder_hash: of
    that model's folder (`content_hash`). source: the training run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    encoder_hash: str
    source: str


def read_memory_card(folder: Path) -> MemoryCard:
    """Read and check `memory.yaml`. Raises `ModelError`."""
    try:
        return MemoryCard.model_validate(yaml.safe_load((folder / "memory.yaml").read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ModelError(f"{folder / 'memory.yaml'} cannot be used: {error}") from error
