"""Reference tensors of the published networks: what they were computed from, and how to compare.

The rules are those of `shared/reference/README.md`: weights filled by the name of their key, an
input given by a formula, prompts in pixels of the padded 1024 square. A network with the published
keys that reproduces the arrays computes the published function.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD
from maskstream.pipeline.segmenter.mask_decoder import DecoderOutput
from maskstream.pipeline.segmenter.prompt_encoder import cell_centers
from maskstream.pipeline.segmenter.sam import Sam

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"
PROMPT_SIDE = 1024
TOLERANCE = 1e-4  # relative; a wrong epsilon in the layer norms makes 2.5e-4, rounding some 3e-6

requires_reference = pytest.mark.skipif(
    not FOLDER.is_dir() and os.environ.get("CI") != "true",
    reason=f"the reference tensors are not at {FOLDER} (an error where CI=true)",
)

Arrays = dict[str, NDArray[np.float32]]
Points = tuple[tuple[float, float, int], ...]  # x, y, label
Box = tuple[float, float, float, float]  # xyxy

POINTS: tuple[Points, ...] = (
    ((300, 400, 1),),
    ((700.5, 120.25, 1), (90, 800, 0)),
    ((512, 512, 1), (520, 600, 1), (30, 30, 0)),
)
BOXES: tuple[Box, ...] = ((200, 150, 800, 900), (40.5, 60.25, 333, 410))
MASK_PROMPT = ("point_box_mask_masks", "point_box_mask_iou")
ARRAYS = (
    "embedding",
    "embedding_shape",
    "embedding_mean",
    "embedding_std",
    "dense_pe",
    *(f"point{i}_multi{m}_{what}" for i in range(3) for m in (1, 0) for what in ("masks", "iou")),
    *(f"box{i}_{what}" for i in range(2) for what in ("masks", "iou")),
    *MASK_PROMPT,
)


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the published state dict, by key."""
    keys = json.loads((FOLDER / f"{name}.keys.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in keys.items()}


def published_arrays(name: str) -> Arrays:
    """The reference's outputs, under the names in `ARRAYS`."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def image(side: int) -> Tensor:
    """The already normalized input, float32 [1, 3, side, side]."""
    line = np.arange(side, dtype=np.float32) / side
    y, x = line[:, None], line[None, :]
    channels = np.stack(
        [
            np.sin(9 * x + 4 * y**2) + np.cos(23 * x * y),
            np.cos(12 * y - 5 * x) + np.sin(31 * x**2 + 0 * y),
            np.sin(63 * (x - 0.4) ** 2 + 17 * y) + np.cos(5 * x),
        ]
    )
    disc = (x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.04
    channels = 1.8 * np.where(disc, -channels / 2, channels / 2)
    return torch.from_numpy(channels.astype(np.float32))[None]


def prompt(points: Points = (), box: Box | None = None) -> tuple[Tensor, Tensor]:
    """Tokens' xy [1, N, 2] (0..1 of the padded square) and labels [1, N] of one prompt."""
    if box is None:
        points = (*points, (0, 0, PAD))
    else:
        points = (*points, (*box[:2], BOX_TOP_LEFT), (*box[2:], BOX_BOTTOM_RIGHT))
    rows = torch.tensor([points], dtype=torch.float32)
    return (rows[..., :2] + 0.5) / PROMPT_SIDE, rows[..., 2]


@torch.no_grad()
def reproduce(model: Sam, always_three: bool = False) -> Arrays:
    """Run a filled network on the input and every prompt; the arrays named in `ARRAYS`.

    A network without mask prompts has no `point_box_mask`.
    always_three: the published decoder returns masks 1..3 even where one mask is asked for.
    """
    features = model.encode(image(model.architecture.long_side))
    embedding = features.embedding
    mask_hw = (4 * embedding.shape[-2], 4 * embedding.shape[-1])
    grid = cell_centers(*mask_hw)
    arrays: dict[str, Tensor] = {
        "embedding": embedding[:, ::8, ::4, ::4],
        "embedding_shape": torch.tensor(embedding.shape),
        "embedding_mean": embedding.mean(),
        "embedding_std": embedding.std(correction=0),
        "dense_pe": model.prompt_encoder.dense_pe(grid)[:, ::16, ::8, ::8],
    }

    def decode(xy: Tensor, labels: Tensor, mask: Tensor | None = None) -> DecoderOutput:
        if mask is None:
            return model.decode(features, xy, labels, torch.zeros(1, 1, *mask_hw), torch.zeros(1))
        return model.decode(features, xy, labels, mask, torch.ones(1))

    def keep(name: str, out: DecoderOutput, masks: slice) -> None:
        arrays[f"{name}_masks"] = out.masks[:, masks, ::4, ::4]
        arrays[f"{name}_iou"] = out.iou[:, masks]

    three = slice(1, 4)
    one = three if always_three else slice(0, 1)
    for i, points in enumerate(POINTS):
        out = decode(*prompt(points))
        keep(f"point{i}_multi1", out, three)
        keep(f"point{i}_multi0", out, one)
    previous = out.masks[:, one.start : one.start + 1]
    for i, box in enumerate(BOXES):
        keep(f"box{i}", decode(*prompt(box=box)), three)
    if model.prompt_encoder.mask_prompts:
        keep("point_box_mask", decode(*prompt(POINTS[0], BOXES[0]), previous), three)
    return {name: value.numpy() for name, value in arrays.items()}


def relative_error(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest difference, relative to the largest magnitude of the expected array."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
