"""Select the cells of a frame to remember: all near objects, a grid of the rest."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

_KERNEL_5X5 = np.ones((5, 5), np.uint8)  # two cells on either side of a border


def choose_cells(
    coverage: FloatMap, step: int, limit: int
) -> tuple[npt.NDArray[np.intp], FloatMap]:
    """Select cells of a frame, ascending, and the number of cells that each represents.

    coverage: float32 [h, w], share of every cell that objects cover. Near objects' borders all
    cells are kept, inside objects every other one, elsewhere one in step x step; at most `limit`.
    Attention adds the logarithm of the weights, which approximates attention over all cells.
    """
    inside = (coverage > 0.5).view(np.uint8)
    touched = (coverage > 0.05).view(np.uint8)
    near = cv2.dilate(touched, _KERNEL_5X5).view(np.bool_)
    border = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, _KERNEL_5X5).view(np.bool_)
    border |= (coverage > 0.05) & (coverage < 0.95)
    weights = np.zeros(coverage.shape, np.float32)
    weights[::step, ::step] = step * step
    weights[near] = 0
    inner = near & ~border
    weights[::2, ::2][inner[::2, ::2]] = 2
    weights[1::2, 1::2][inner[1::2, 1::2]] = 2
    weights[border] = 1
    flat = weights.reshape(-1)
    cells = np.flatnonzero(flat)
    if len(cells) > limit:
        kept = np.linspace(0, len(cells) - 1, limit).astype(np.intp)
        flat = flat * np.float32(len(cells) / limit)
        cells = cells[kept]
    return cells, flat[cells]
