"""Decode any number of prompts in batches, whichever engine runs the decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.types import SizeHW

Tensors = Mapping[str, npt.NDArray[np.float32]]

BATCH = 8
"""Maximum of prompts per call.

Time is linear in their number, so a larger batch only costs memory (50 MB per prompt at 64 x 64).
"""

RunBatch = Callable[[Tensors], tuple[FloatMap, npt.NDArray[np.float32]]]
"""Runs a decoder on the prompts of one batch; gives logits and IoU."""


def mask_inputs(
    count: int, grid_hw: SizeHW, mask: FloatMap | None, has_mask: npt.NDArray[np.float32] | None
) -> dict[str, npt.NDArray[np.float32]]:
    """The decoder's inputs of these names; without a mask zeros. Arguments as `PromptBatch`."""
    given = np.float32(mask is not None)
    if mask is None:
        mask = np.zeros((count, 1, *grid_hw), np.float32)
    if has_mask is None:
        has_mask = np.full(count, given)
    return {"mask": mask, "has_mask": has_mask}


def in_batches(
    run: RunBatch, prompts: Tensors, grid_hw: SizeHW
) -> tuple[FloatMap, npt.NDArray[np.float32]]:
    """Logits [B, 4, 4h, 4w] and IoU [B, 4] of B prompts, `BATCH` at a time."""
    count = len(prompts["xy"])
    masks = np.empty((count, 4, *grid_hw), np.float32)
    iou = np.empty((count, 4), np.float32)
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        batch = {name: values[part] for name, values in prompts.items()}
        masks[part], iou[part] = run(batch)
    return masks, iou
