"""Input of the memory network: the embedded encoder's maps at strides 4, 8 and 16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

NAMES = ("s4", "s8", "skip_s8", "s16", "embedding")


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """Maps of one frame, float32 [C, h, w].

    s4, skip_s8: the neck's skips at strides 4 and 8. s8, s16: the backbone's at strides 8 and 16.
    embedding: the neck's at stride 16.
    """

    s4: FloatMap
    s8: FloatMap
    skip_s8: FloatMap
    s16: FloatMap
    embedding: FloatMap

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.float32]]) -> FrameFeatures:
        """Build from the encoder's outputs by name (`Features.tensors`)."""
        height, width = tensors["embedding"].shape[-2:]
        return cls(
            _map_of(tensors["skip_s4"], 2, height, width),
            tensors["features_s8"][0],
            _map_of(tensors["skip_s8"], 1, height, width),
            tensors["features_s16"][0],
            tensors["embedding"][0],
        )


def _map_of(tokens: npt.NDArray[np.float32], steps: int, height: int, width: int) -> FloatMap:
    """Reorder tokens [1, 4^s h w, C] from the decoder's layout to a map [C, 2^s h, 2^s w]."""
    channels = tokens.shape[-1]
    twos = (2, 2) * steps
    x = tokens.reshape(height, width, *twos, channels)
    rows = [0, *(2 + 2 * i for i in range(steps))]
    columns = [1, *(3 + 2 * i for i in range(steps))]
    x = x.transpose(2 + 2 * steps, *rows, *columns)
    return np.ascontiguousarray(x.reshape(channels, height << steps, width << steps))
