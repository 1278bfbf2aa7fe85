"""Contents of `objectness.yaml`, which describes the embedded objectness head."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from maskstream.pipeline.errors import ModelError


class ObjectnessCard(BaseModel):
    """Contents of `objectness.yaml`.

    encoder: name of the embedded model whose encoder the head was trained on; encoder_hash: of that
    model's folder (`content_hash`). source: the training run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    encoder_hash: str
    source: str


def read_objectness_card(folder: Path) -> ObjectnessCard:
    """Read and check `objectness.yaml`. Raises `ModelError`."""
    try:
        text = (folder / "objectness.yaml").read_text()
        return ObjectnessCard.model_validate(yaml.safe_load(text))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ModelError(f"{folder / 'objectness.yaml'} cannot be used: {error}") from error
