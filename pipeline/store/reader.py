"""Read a mask store, also while another process writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from pipeline.errors import StoreCorruptError, StoreError
from pipeline.store.header import read_header
from pipeline.store.layout import (
    FRAME_COLUMNS,
    LABELS,
    NO_PTS,
    OBJECT_COLUMNS,
    capped_threads,
    open_arrays,
)
from pipeline.types import FrameResult, LabelMap, ObjectResult, SourceInfo
from trackers.state import TrackState


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object over the whole store, judged by the frames on which it has pixels.

    first_index, last_index: the source's frame numbers. mean_score: 0..1.
    """

    id: int
    first_index: int
    last_index: int
    frames_seen: int
    mean_score: float


class MaskStore:
    """The committed part of the store at `path`, as it is at this moment; open again for more.

    The tables (some 60 bytes an object and frame) are read at once, label maps when asked for.
    A row counts frames in the store from 0, an index is the source's own frame number.

    Raises:
        StoreError: there is no mask store, or it cannot be read.
        StoreCorruptError: its parts contradict each other; reading frames may raise it as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = read_header(path)
        frames, objects = self._header.committed_frames, self._header.committed_objects
        with self._zarr():
            group = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)
            arrays = open_arrays(group, frames=frames, objects=objects)
            self._labels = arrays[LABELS]
            self._columns = {
                column.path: np.asarray(arrays[column.path][:rows])
                for columns, rows in ((FRAME_COLUMNS, frames), (OBJECT_COLUMNS, objects))
                for column in columns
            }
            self._check_objects()
        self._object_stops = np.searchsorted(
            self._columns["objects/frame"], np.arange(frames), side="right"
        )

    @property
    def source(self) -> SourceInfo:
        """The source the masks were made from."""
        return self._header.source

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the writer was given to keep: model, config, versions."""
        return self._header.attributes

    @property
    def complete(self) -> bool:
        """Whether the source was processed to its end."""
        return self._header.complete

    @property
    def committed_frames(self) -> int:
        """Frames that can be read."""
        return self._header.committed_frames

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The source's frame number of every row, int64 [T]."""
        return self._columns["frames/index"]

    def __len__(self) -> int:
        return self.committed_frames

    def __iter__(self) -> Iterator[FrameResult]:
        return (self.frame(row) for row in range(len(self)))

    def frame(self, row: int) -> FrameResult:
        """Everything about the frame in `row`. Raises `IndexError` beyond the store."""
        labels = self._read_labels(row)
        pts = int(self._columns["frames/pts"][row])
        start = self._object_stops[row - 1] if row else 0
        return FrameResult(
            index=int(self.indices[row]),
            pts=None if pts == NO_PTS else pts,
            time_base=self.source.time_base,
            keyframe=bool(self._columns["frames/keyframe"][row]),
            labels=labels,
            objects=tuple(self._object(at) for at in range(start, self._object_stops[row])),
        )

    def mask(self, object_id: int, row: int) -> npt.NDArray[np.bool_]:
        """Mask of one object, bool [H, W]; all False where it is not on the frame in `row`."""
        return np.equal(self._read_labels(row), object_id)

    def objects(self) -> list[ObjectSummary]:
        """Every object that has pixels on some frame, by id."""
        rows = np.flatnonzero(self._columns["objects/area"] > 0)
        by_id = rows[np.argsort(self._columns["objects/id"][rows], kind="stable")]
        ids, starts = np.unique(self._columns["objects/id"][by_id], return_index=True)
        parts = np.split(by_id, starts[1:]) if len(ids) else []
        return [self._summary(int(found), own) for found, own in zip(ids, parts, strict=True)]

    def _summary(self, object_id: int, own: npt.NDArray[np.int64]) -> ObjectSummary:
        first, last = self.indices[self._columns["objects/frame"][own[[0, -1]]]].tolist()
        return ObjectSummary(
            id=object_id,
            first_index=first,
            last_index=last,
            frames_seen=len(own),
            mean_score=float(self._columns["objects/score"][own].mean(dtype=np.float64)),
        )

    def _check_objects(self) -> None:
        rows = self._columns["objects/frame"]
        if np.any(np.diff(rows, prepend=0) < 0) or np.any(rows >= len(self)):
            raise ValueError("objects point at frames that are not there")
        if np.any(self._columns["objects/state"] > max(TrackState)):
            raise ValueError("objects have states that do not exist")

    def _read_labels(self, row: int) -> LabelMap:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a mask store of {len(self)} frames")
        with self._zarr():
            return np.asarray(self._labels[row], dtype=np.uint16)

    def _object(self, at: int) -> ObjectResult:
        x0, y0, x1, y1 = self._columns["objects/box_xyxy"][at].tolist()
        return ObjectResult(
            id=int(self._columns["objects/id"][at]),
            box_xyxy=(x0, y0, x1, y1),
            score=float(self._columns["objects/score"][at]),
            state=TrackState(int(self._columns["objects/state"][at])),
            area=int(self._columns["objects/area"][at]),
        )

    @contextmanager
    def _zarr(self) -> Iterator[None]:
        try:
            with capped_threads():
                yield
        except OSError as error:
            raise StoreError(
                f"The mask store {self.path} cannot be read: {error.strerror or error}."
            ) from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StoreCorruptError(
                f"The mask store {self.path} is damaged: {error}; write it again with --overwrite."
            ) from error
