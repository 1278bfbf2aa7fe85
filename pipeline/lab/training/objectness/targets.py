"""Which cells of the objectness head learn which box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL_PX = 80.0
"""Long side, input pixels, up to which boxes belong to the finer stride; longer: to the coarser."""
_OVERLAP = 1.5  # factor either way within which both strides learn a box
_RADIUS = 1.5  # strides around the center of a box within which cells learn it


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of one image at one stride.

    cells: int64 [P], flat indices of cells that learn a box; boxes: float32 [P, 4], xyxy in input
    pixels. ignored: bool [h w], cells whose score is not trained.
    """

    cells: Tensor
    boxes: Tensor
    ignored: Tensor


def cell_centers(size_hw: tuple[int, int], stride: int) -> Tensor:
    """Centers (x, y) of the cells of a map, float32 [h w, 2], input pixels."""
    y, x = torch.meshgrid(torch.arange(size_hw[0]), torch.arange(size_hw[1]), indexing="ij")
    return (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride


def assign(boxes: Tensor, size_hw: tuple[int, int], stride: int, *, coarsest: bool) -> Targets:
    """Assign boxes [N, 4] to the cells of a map of `size_hw` cells.

    As FCOS with center sampling: cells near the center of a box learn it; of several boxes a cell
    learns the smallest. Cells near the center of a box of the other stride alone are ignored.
    """
    cells = size_hw[0] * size_hw[1]
    if not len(boxes):
        empty = torch.zeros(0, dtype=torch.int64)
        return Targets(empty, boxes, torch.zeros(cells, dtype=torch.bool))
    centers = cell_centers(size_hw, stride)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = torch.clamp((boxes[:, 2:] - boxes[:, :2]) / 2, max=_RADIUS * stride)
    reach = torch.clamp(reach, min=0.5 * stride)  # at least the cell around the center
    near = ((centers[:, None] - middle[None]).abs() <= reach[None]).all(2)
    inside = (centers[:, None] > boxes[None, :, :2]) & (centers[:, None] < boxes[None, :, 2:])
    near &= inside.all(2)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    limit = LEVEL_PX
    own = side >= limit / _OVERLAP if coarsest else side <= limit * _OVERLAP
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    cost = torch.where(near & own[None], area[None], torch.inf)
    least, best = cost.min(1)
    positive = torch.isfinite(least)
    return Targets(
        torch.nonzero(positive)[:, 0],
        boxes[best[positive]],
        near.any(1) & ~positive,
    )
