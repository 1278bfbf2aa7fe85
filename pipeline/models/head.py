"""Open the embedded objectness head, which proposes boxes from the embedded model's features."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.models.find import EMBEDDED, content_hash
from maskstream.pipeline.objectness.card import read_objectness_card
from maskstream.pipeline.objectness.model import ObjectnessModel

OBJECTNESS = EMBEDDED / "objectness"
"""Folder of the embedded head: its graph and `objectness.yaml`."""


def open_seeding_head(config: PipelineConfig) -> ObjectnessModel | None:
    """The head, for the embedded model's features; None unless seeding uses it.

    Raises `ModelError`.
    """
    seeding = config.seeding
    if not seeding.enabled or seeding.proposals != "head":
        return None
    return ObjectnessModel(OBJECTNESS, threads=config.threads.inference)


def open_head_of(model: Path, *, threads: int = 2) -> ObjectnessModel | None:
    """The head, for the features of a model; None if it was not trained on that model's encoder.

    model: folder. Raises `ModelError`.
    """
    card = read_objectness_card(OBJECTNESS)
    if not model.is_dir() or content_hash(model) != card.encoder_hash:
        return None
    return ObjectnessModel(OBJECTNESS, threads=threads)
