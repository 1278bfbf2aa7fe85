"""Covered parts of objects as run-length codes along pixel rows, lossless for any overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.store.layout import HIDDEN, Rows
from maskstream.pipeline.types import CoveredPart, SizeHW


def runs_of(parts: Sequence[CoveredPart], row: int, size_hw: SizeHW) -> Rows:
    """Rows of the `hidden` table for the frame in `row`.

    Raises:
        StoreError: a part lies outside the image.
    """
    if not parts:
        return np.zeros(0, HIDDEN.dtype)
    return np.concatenate([_runs(part, row, size_hw) for part in parts])


def parts_of(runs: Rows, size_hw: SizeHW) -> tuple[CoveredPart, ...]:
    """Covered parts from one frame's runs, ascending by object, each in its tight window."""
    return tuple(
        _part(int(found), runs[runs["id"] == found], size_hw) for found in np.unique(runs["id"])
    )


def _runs(part: CoveredPart, row: int, size_hw: SizeHW) -> Rows:
    (height, width), (rows, columns) = size_hw, part.mask.shape
    if not (0 <= part.y0 <= height - rows and 0 <= part.x0 <= width - columns):
        raise StoreError(
            f"A covered part of object {part.object_id} lies outside the {width}x{height} image."
        )
    edges = np.diff(part.mask.astype(np.int8), axis=1, prepend=0, append=0)
    at_row, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    runs = np.zeros(len(start), HIDDEN.dtype)
    runs["frame"] = row
    runs["id"] = part.object_id
    runs["start"] = (part.y0 + at_row) * width + part.x0 + start
    runs["length"] = stop - start
    return runs


def _part(object_id: int, runs: Rows, size_hw: SizeHW) -> CoveredPart:
    y, start = np.divmod(runs["start"].astype(np.int64), size_hw[1])
    stop = start + runs["length"]
    y0, x0 = int(y.min()), int(start.min())
    edges = np.zeros((int(y.max()) - y0 + 1, int(stop.max()) - x0 + 1), np.int32)
    np.add.at(edges, (y - y0, start - x0), 1)
    np.add.at(edges, (y - y0, stop - x0), -1)
    return CoveredPart(object_id, y0, x0, np.cumsum(edges, axis=1)[:, :-1] > 0)
