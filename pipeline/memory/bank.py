"""What is remembered of a stream: cells of prompted and of recent keyframes, bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

_PAD_BIAS = -1e4  # of cells that fill up a reading: no weight in a softmax
_PAD_CELLS = 128  # remembered cells are read in multiples of this, so that few shapes occur


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much is remembered.

    references: prompted keyframes at most, kept for good. recent: keyframes beside them, at least
    `recent_every_s` seconds apart. *_cells: of one frame at most. *_step: grid of cells kept away
    from objects.
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
    """Cells of a keyframe.

    keys: float32 [n, K]. likeness: [n, L]. bias: [n], logarithm of how many cells each stands for.
    values: [n, V] by object id. absent: [n, V], of an object that had no pixel there.
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
    """Cells that are read together: keys [1, N, K], bias [1, N], values [1, N, L + O V]."""

    keys: FloatMap
    bias: FloatMap
    values: FloatMap


@dataclass(slots=True)
class MemoryBank:
    """The remembered frames of one stream."""

    settings: MemorySettings
    references: deque[RememberedFrame] = field(init=False)
    recent: deque[RememberedFrame] = field(init=False)
    followed_s: float = -math.inf

    def __post_init__(self) -> None:
        self.references = deque(maxlen=self.settings.references)
        self.recent = deque(maxlen=self.settings.recent)

    def knows(self, object_id: int) -> bool:
        """Whether an object was given on a remembered frame."""
        return any(object_id in frame.values for frame in self.references)

    def follow(self, frame: RememberedFrame, now_s: float) -> None:
        """Remember a keyframe for a while, unless the last one is too near."""
        if now_s - self.followed_s >= self.settings.recent_every_s:
            self.recent.append(frame)
            self.followed_s = now_s

    def forget_others(self, kept: Collection[int]) -> None:
        """Forget all objects but these, and frames that know none of the rest."""
        for frames in (self.references, self.recent):
            for frame in frames:
                for object_id in set(frame.values) - set(kept):
                    del frame.values[object_id]
            known = [frame for frame in frames if frame.values]
            if len(known) < len(frames):
                frames.clear()
                frames.extend(known)


def group(frames: Iterable[RememberedFrame], ids: Sequence[int]) -> Group | None:
    """The cells of some frames with the values of some objects; None if there is no frame."""
    kept = list(frames)
    if not kept:
        return None
    keys = np.concatenate([f.keys for f in kept])
    bias = np.concatenate([f.bias for f in kept])
    values = np.concatenate(
        [np.concatenate([f.likeness, *(f.of(i) for i in ids)], axis=1) for f in kept]
    )
    room = -len(keys) % _PAD_CELLS
    keys = np.pad(keys, ((0, room), (0, 0)))
    bias = np.pad(bias, (0, room), constant_values=_PAD_BIAS)
    values = np.pad(values, ((0, room), (0, 0)))
    return Group(keys[None], bias[None], values[None])
