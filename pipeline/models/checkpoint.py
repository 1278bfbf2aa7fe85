"""Load networks from checkpoints: published files and this project's training checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.segmenter.sam import BUILDERS, Sam, build
from maskstream.pipeline.weights.checkpoints import load_checkpoint, load_into, shapes_of
from maskstream.pipeline.weights.registry import Registry


def load_network(checkpoint: Path, architecture: str | None = None) -> Sam:
    """Build the network of a checkpoint and load it, ready for inference.

    architecture: a name of `sam.BUILDERS`; None: detected from keys and shapes. Training
    checkpoints contain their architecture; their averaged weights are used. Raises `ModelError`.
    """
    trained = _training_state(checkpoint)
    state: Mapping[str, Tensor]
    if trained is not None:
        architecture, state = trained
    else:
        state = load_checkpoint(checkpoint)
        published = _published_networks(state)
        if architecture is not None and published and architecture not in published:
            raise ModelError(f"{checkpoint} holds weights of {published[0]}, not of {architecture}")
        architecture = architecture or next(iter(published), None)
    if architecture not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise ModelError(f"say which network {checkpoint} is of: {known}")
    model = build(architecture)
    load_into(model, {key: value.float() for key, value in state.items()})
    return model.eval()


def _published_networks(state: Mapping[str, Tensor]) -> list[str]:
    """Published models with these keys and shapes; TinySAM and MobileSAM share theirs."""
    registry = Registry.published()
    architecture = registry.identify(shapes_of(state))
    return [entry.name for entry in registry.entries() if entry.architecture == architecture]


def _training_state(checkpoint: Path) -> tuple[str, dict[str, Tensor]] | None:
    """Architecture and averaged weights of a training checkpoint; None if it is not one."""
    if not checkpoint.is_file():
        raise ModelError(f"there is no checkpoint {checkpoint}")
    try:
        content: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # load_checkpoint reports what is wrong with the file
        return None
    if not isinstance(content, dict) or not {"average", "config"} <= content.keys():
        return None
    return content["config"]["model"], content["average"]
