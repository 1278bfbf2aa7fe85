"""Memory bank of a stream: cells of prompted and recent keyframes, bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

_PAD_BIAS = -1e4  # bias of padding cells, which gives them no weight in the softmax
_PAD_CELLS = 128  # memory is padded to multiples of this, so that few shapes occur


@dataclass(frozen=True, slots=True)
class CellLimits:
    """Cells kept of one frame: at most `cells`, one in `step` x `step` away from objects."""

    cells: int
    step: int


REFERENCE_CELLS = CellLimits(768, 2)
RECENT_CELLS = CellLimits(384, 4)


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Sizes of the memory bank.

    references: maximum of prompted keyframes per object, which are kept. recent: maximum of recent
    keyframes, at least `recent_interval_s` seconds apart.
    """

    references: int = 4
    recent: int = 2
    recent_interval_s: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class RememberedFrame:
    """Remembered cells of a keyframe.

    keys: float32 [n, K]. likeness: [n, L]. bias: [n], logarithm of the number of cells that each
    represents. values: [n, V] by object id.
    """

    keys: FloatMap
    likeness: FloatMap
    bias: FloatMap
    values: dict[int, FloatMap]


@dataclass(frozen=True, slots=True)
class Group:
    """Cells for one attention readout: keys [1, N, K], bias [1, N], values [1, N, L + O V]."""

    keys: FloatMap
    bias: FloatMap
    values: FloatMap


@dataclass(slots=True)
class MemoryBank:
    """Remembered keyframes of one stream; references per object and recent frames are bounded."""

    settings: MemorySettings
    references: list[RememberedFrame] = field(default_factory=list)
    recent: deque[RememberedFrame] = field(init=False)
    last_recent_s: float = -math.inf

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.settings.recent)

    def __contains__(self, object_id: int) -> bool:
        return any(object_id in frame.values for frame in self.references)

    def references_only(self) -> MemoryBank:
        """The prompted keyframes alone."""
        return MemoryBank(self.settings, list(self.references))

    def add_reference(self, frame: RememberedFrame) -> None:
        """Keep a frame for its objects; each object keeps its newest references."""
        self.references.append(frame)
        for object_id in frame.values:
            known = [f for f in self.references if object_id in f.values]
            for old in known[: -self.settings.references]:
                del old.values[object_id]
        self.references = [f for f in self.references if f.values]

    def wants_recent(self, now_s: float) -> bool:
        """Whether the last recent keyframe is long enough ago."""
        interval = now_s - self.last_recent_s
        return self.settings.recent > 0 and interval >= self.settings.recent_interval_s

    def add_recent(self, frame: RememberedFrame, now_s: float) -> None:
        """Add a recent keyframe; it replaces the oldest."""
        self.recent.append(frame)
        self.last_recent_s = now_s

    def forget_recent(self, objects: Collection[int]) -> None:
        """Forget objects on the recent keyframes, whose masks were wrong."""
        for frame in self.recent:
            for object_id in objects:
                frame.values.pop(object_id, None)

    def keep_only(self, kept: Collection[int]) -> None:
        """Forget all objects except these, and frames that have none of them."""
        for frame in (*self.references, *self.recent):
            for object_id in set(frame.values) - set(kept):
                del frame.values[object_id]
        self.references = [f for f in self.references if f.values]
        recent = [f for f in self.recent if f.values]
        self.recent.clear()
        self.recent.extend(recent)

    def frames_of(
        self, object_id: int
    ) -> tuple[tuple[RememberedFrame, ...], tuple[RememberedFrame, ...]]:
        """References and recent keyframes that know an object."""
        references = tuple(f for f in self.references if object_id in f.values)
        return references, tuple(f for f in self.recent if object_id in f.values)


def group(frames: Sequence[RememberedFrame], ids: Sequence[int]) -> Group:
    """Concatenate the cells of frames (at least one) that know all these objects."""
    keys = np.concatenate([f.keys for f in frames])
    bias = np.concatenate([f.bias for f in frames])
    values = np.concatenate(
        [np.concatenate([f.likeness, *(f.values[i] for i in ids)], axis=1) for f in frames]
    )
    padding = -len(keys) % _PAD_CELLS
    keys = np.pad(keys, ((0, padding), (0, 0)))
    bias = np.pad(bias, (0, padding), constant_values=_PAD_BIAS)
    values = np.pad(values, ((0, padding), (0, 0)))
    return Group(keys[None], bias[None], values[None])
