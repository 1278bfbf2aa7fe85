"""Open the embedded objectness head, which proposes boxes from the embedded model's features."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.models.find import EMBEDDED, content_hash
from maskstream.pipeline.objectness.card import read_objectness_card
from maskstream.pipeline.objectness.model import ObjectnessModel

OBJECTNESS = EMBEDDED / "objectness"
"""Folder of the embedded head: its graph and `objectness.yaml`."""


def open_objectness(config: PipelineConfig) -> ObjectnessModel | None:
    """The head, for the embedded model's features; None unless seeding uses it.

    Raises `ModelError`.
    """
    seeding = config.seeding
    if not seeding.enabled or seeding.proposals != "head":
        return None
    return ObjectnessModel(OBJECTNESS, threads=config.threads.inference)


def reads_features_of(model: Path) -> bool:
    """Whether the head was trained on the encoder of this model's folder. Raises `ModelError`."""
    return model.is_dir() and content_hash(model) == read_objectness_card(OBJECTNESS).encoder_hash
