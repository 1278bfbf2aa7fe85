"""Summary of each object of a store, accumulated without keeping its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.store.layout import Rows


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object over the whole store, by the frames on which it has pixels.

    first_index, last_index: frame indices. mean_score: 0..1. name: as given by a person, else "".
    label: its class on the last frame, else "".
    """

    id: int
    first_index: int
    last_index: int
    frames_seen: int
    mean_score: float
    name: str = ""
    label: str = ""


@dataclass(slots=True)
class _Sums:
    first_row: int
    last_row: int
    frames: int = 0
    score: float = 0.0
    label: str = ""


class Summaries:
    """Accumulates rows of the object table, in frame order.

    `indices`: frame index of every row, int64 [T]. `names`: of objects, by id. `classes`: names by
    number.
    """

    def __init__(
        self,
        indices: npt.NDArray[np.int64],
        names: Mapping[int, str],
        classes: Sequence[str] = (),
    ) -> None:
        self._indices = indices
        self._names = names
        self._classes = classes
        self._sums: dict[int, _Sums] = {}

    def add(self, rows: Rows) -> None:
        """Add rows."""
        seen = rows[rows["area"] > 0]
        for object_id in np.unique(seen["id"]).tolist():
            own = seen[seen["id"] == object_id]
            first, last = int(own["frame"][0]), int(own["frame"][-1])
            sums = self._sums.setdefault(object_id, _Sums(first, last))
            sums.last_row = last
            sums.frames += len(own)
            sums.score += float(own["score"].sum(dtype=np.float64))
            if self._classes and own["class"][-1] >= 0:
                sums.label = self._classes[own["class"][-1]]

    def result(self) -> list[ObjectSummary]:
        """Summaries of all objects, by id."""
        return [
            ObjectSummary(
                id=object_id,
                first_index=int(self._indices[sums.first_row]),
                last_index=int(self._indices[sums.last_row]),
                frames_seen=sums.frames,
                mean_score=sums.score / sums.frames,
                name=self._names.get(object_id, ""),
                label=sums.label,
            )
            for object_id, sums in sorted(self._sums.items())
        ]
