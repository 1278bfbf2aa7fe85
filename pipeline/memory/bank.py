"""Memory bank of a stream: cells of prompted and recent keyframes, bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

_PAD_BIAS = -1e4  # bias of padding cells, which gives them no weight in the softmax
_PAD_CELLS = 128  # memory is padded to multiples of this, so that few shapes occur


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Sizes of the memory bank.

    references: maximum of prompted keyframes, which are kept. recent: maximum of recent keyframes,
    at least `recent_every_s` seconds apart. *_cells: maximum per frame. *_step: stride of the cells
    kept away from objects.
    """

    references: int = 4
    recent: int = 2
    recent_every_s: float = 0.1
    reference_cells: int = 768
    recent_cells: int = 384
    reference_step: int = 2
    recent_step: int = 4


@dataclass(frozen=True, slots=True)
class RememberedFrame:
    """Remembered cells of a keyframe.

    keys: float32 [n, K]. likeness: [n, L]. bias: [n], logarithm of the number of cells that each
    represents. values: [n, V] by object id. absent: [n, V], of objects without pixels on the frame.
    """

    keys: FloatMap
    likeness: FloatMap
    bias: FloatMap
    values: dict[int, FloatMap]
    absent: FloatMap

    def of(self, object_id: int) -> FloatMap:
        """Values [n, V] of an object."""
        return self.values.get(object_id, self.absent)


@dataclass(frozen=True, slots=True)
class Group:
    """Cells for one attention readout: keys [1, N, K], bias [1, N], values [1, N, L + O V]."""

    keys: FloatMap
    bias: FloatMap
    values: FloatMap


@dataclass(slots=True)
class MemoryBank:
    """Remembered keyframes of one stream."""

    settings: MemorySettings
    references: deque[RememberedFrame] = field(init=False)
    recent: deque[RememberedFrame] = field(init=False)
    followed_s: float = -math.inf

    def __post_init__(self) -> None:
        self.references = deque(maxlen=self.settings.references)
        self.recent = deque(maxlen=self.settings.recent)

    def knows(self, object_id: int) -> bool:
        """Whether an object is on a prompted frame of the bank."""
        return any(object_id in frame.values for frame in self.references)

    def follow(self, frame: RememberedFrame, now_s: float) -> None:
        """Add a recent keyframe, unless the last one is too close in time."""
        if now_s - self.followed_s >= self.settings.recent_every_s:
            self.recent.append(frame)
            self.followed_s = now_s

    def forget_others(self, kept: Collection[int]) -> None:
        """Forget all objects except these, and frames that have none of them."""
        for frames in (self.references, self.recent):
            for frame in frames:
                for object_id in set(frame.values) - set(kept):
                    del frame.values[object_id]
            known = [frame for frame in frames if frame.values]
            if len(known) < len(frames):
                frames.clear()
                frames.extend(known)


def group(frames: Iterable[RememberedFrame], ids: Sequence[int]) -> Group | None:
    """Concatenate the cells of frames with the values of objects; None if there is no frame."""
    kept = list(frames)
    if not kept:
        return None
    keys = np.concatenate([f.keys for f in kept])
    bias = np.concatenate([f.bias for f in kept])
    values = np.concatenate(
        [np.concatenate([f.likeness, *(f.of(i) for i in ids)], axis=1) for f in kept]
    )
    padding = -len(keys) % _PAD_CELLS
    keys = np.pad(keys, ((0, padding), (0, 0)))
    bias = np.pad(bias, (0, padding), constant_values=_PAD_BIAS)
    values = np.pad(values, ((0, padding), (0, 0)))
    return Group(keys[None], bias[None], values[None])
