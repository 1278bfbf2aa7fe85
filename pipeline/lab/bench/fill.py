"""Random weights for speed measurements without a checkpoint.

The rule is that of the reference tensors (shared/reference/README.md): normal noise seeded with
the key's CRC-32, scaled so that activations keep their magnitude. Weights do not affect speed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from maskstream.pipeline.segmenter.sam import Sam, build


def filled_model(name: str) -> Sam:
    """A network with these random weights, in evaluation mode."""
    model = build(name).eval()
    model.load_state_dict(filled(model.state_dict()))
    return model


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the same keys and shapes and with random weights."""
    return {key: _fill(key, value) for key, value in state.items()}


def _fill(key: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return torch.zeros_like(value) if key.endswith("num_batches_tracked") else value
    shape = tuple(value.shape)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif key.endswith("running_mean"):
        noise = 0.1 * noise
    elif key.endswith("positional_encoding_gaussian_matrix"):
        pass
    elif len(shape) >= 2:
        noise = noise / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        noise = 1 + 0.1 * noise
    else:
        noise = 0.05 * noise
    return torch.from_numpy(noise.astype(np.float32))
