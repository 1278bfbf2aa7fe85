"""Read a mask store, also while another process writes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import StoreCorruptError, StoreError
from maskstream.pipeline.store.classes import class_names
from maskstream.pipeline.store.covered import parts_of
from maskstream.pipeline.store.header import is_emptied, is_store, read_header
from maskstream.pipeline.store.layout import (
    FRAMES_PER_SHARD,
    NO_PTS,
    Rows,
    Table,
    capped_threads,
)
from maskstream.pipeline.store.open_place import open_place
from maskstream.pipeline.store.records import Record
from maskstream.pipeline.store.recovery import Pending, pending_of
from maskstream.pipeline.store.shards import (
    RecordLocation,
    find_frames,
    read_frame,
    read_journal,
    read_shard,
)
from maskstream.pipeline.store.summary import ObjectSummary, Summaries
from maskstream.pipeline.store.tables import open_column
from maskstream.pipeline.types import FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState


@dataclass(frozen=True, slots=True)
class FrameObjects:
    """A frame's table rows, without its pixels."""

    index: int
    pts: int | None
    keyframe: bool
    objects: tuple[ObjectResult, ...]
    captured_s: float | None = None


class MaskStore:
    """Reader of the store at `path`, a folder or a URL, as of now; reopen to see later frames.

    Frames are read on demand and verified by checksum: one read of the shard's index and one of the
    frame. A row counts the store's frames from 0, an index is the source's frame index.

    Raises:
        StoreError: there is no mask store, or it cannot be read.
        StoreCorruptError: it is inconsistent; reading frames may raise it as well.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._place = open_place(path)
        self._header = read_header(self._place)
        self._shard = -1
        self._locations: dict[int, RecordLocation] = {}
        with self._disk():
            self._tail = self._read_tail()
            if self._header.frames:
                self._find(self._header.frames - 1)

    @classmethod
    def open_if_exists(cls, path: Path | str) -> Self | None:
        """Open the store at `path`; None if there is none."""
        place = open_place(path)
        return cls(path) if is_store(place) and not is_emptied(place) else None

    @property
    def source(self) -> SourceInfo:
        """Info of the source."""
        return self._header.source

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The caller's attributes: model, config, versions."""
        return self._header.attributes

    @property
    def span(self) -> Mapping[str, Any]:
        """Requested part of the source."""
        return self._header.span

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """Events of the prompt log, JSON objects in order."""
        return [*self._header.events, *self._tail.events]

    @property
    def names(self) -> dict[int, str]:
        """Names of objects by id, from the last `rename` event of each."""
        return {
            int(event["object"]): str(event["name"])
            for event in self.events
            if event.get("type") == "rename"
        }

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes of objects by their number (`objects/class`)."""
        return class_names(self.events)

    @property
    def review(self) -> Sequence[Mapping[str, Any]] | None:
        """Review items written with the store, JSON objects.

        None if there are none, or frames were added since.
        """
        return None if self._tail.rows else self._header.review

    @property
    def complete(self) -> bool:
        """Whether the source was processed to its end."""
        return self._header.complete

    @property
    def committed_frames(self) -> int:
        """Frames that can be read."""
        return self._header.frames + len(self._tail.rows)

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """The source's frame index of every row, int64 [T]."""
        return np.asarray(self._frame_column("index"), np.int64)

    @cached_property
    def captured_s(self) -> npt.NDArray[np.float64] | None:
        """Capture clock of every row, seconds since 1970, float64 [T].

        NaN where it is unknown; None if the source was not live.
        """
        if not self.source.live:
            return None
        return np.asarray(self._frame_column("captured_s"), np.float64)

    def __len__(self) -> int:
        return self.committed_frames

    def __iter__(self) -> Iterator[FrameResult]:
        return (self.frame(row) for row in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Does nothing: no file is open between reads."""

    def frame(self, row: int) -> FrameResult:
        """Read the result of the frame in `row`. Raises `IndexError` beyond the store."""
        with self._disk():
            record = self._record(row)
            rows = record.frame_rows()
            index, pts, keyframe, *captured = rows.frame[0].tolist()
            return FrameResult(
                index=index,
                pts=None if pts == NO_PTS else pts,
                time_base=self.source.time_base,
                keyframe=keyframe,
                labels=record.labels(self.source.size_hw),
                objects=self._objects(rows.objects.tolist()),
                covered=parts_of(rows.hidden, self.source.size_hw),
                captured_s=_captured_s(captured),
            )

    def mask(self, object_id: int, row: int) -> npt.NDArray[np.bool_]:
        """Whole mask of one object, bool [H, W], including covered pixels."""
        return self.frame(row).mask(object_id)

    def objects(self) -> list[ObjectSummary]:
        """Summaries of all objects that have pixels on some frame, by id."""
        summaries = Summaries(self.indices, self.names, self.class_names)
        classes = ("class",) if self._header.classes else ()
        for rows in self._object_rows(("frame", "id", "score", "area", *classes)):
            summaries.add(rows)
        return summaries.result()

    def frame_objects(self) -> Iterator[FrameObjects]:
        """Yield the table rows of every frame in order, one chunk of rows in memory at a time.

        Raises `StoreError`, `StoreCorruptError`.
        """
        fields = self._header.tables[1].fields
        found = (row for rows in self._object_rows(fields) for row in rows.tolist())
        by_frame = groupby(found, key=itemgetter(0))
        next_row, group = next(by_frame, (-1, iter(())))
        frames = (frame for rows in self._frame_rows() for frame in rows.tolist())
        for row, (index, pts, keyframe, *captured) in enumerate(frames):
            objects: tuple[ObjectResult, ...] = ()
            if row == next_row:
                with self._disk():
                    objects = self._objects(group)
                next_row, group = next(by_frame, (-1, iter(())))
            pts = None if pts == NO_PTS else pts
            yield FrameObjects(index, pts, keyframe, objects, _captured_s(captured))

    def _frame_column(self, field: str) -> npt.NDArray[Any]:
        with self._disk():
            column = open_column(self._place, self._header.tables[0], field)
            if column.shape[0] < self._header.frames:
                raise ValueError(f"frames/{field} lacks rows")
            stored = np.asarray(column[: self._header.frames])
        return np.concatenate([stored, *(rows.frame[field] for rows in self._tail.rows)])

    def _frame_rows(self) -> Iterator[Rows]:
        """Yield the frame table in chunks of rows."""
        table = self._header.tables[0]
        yield from self._row_chunks(table, table.fields, self._header.frames)
        yield from (rows.frame for rows in self._tail.rows)

    def _object_rows(self, fields: Sequence[str]) -> Iterator[Rows]:
        """Yield columns of the object table in chunks of rows."""
        for rows in self._row_chunks(self._header.tables[1], fields, self._header.objects):
            with self._disk():
                if np.any((rows["frame"] < 0) | (rows["frame"] >= len(self))):
                    raise ValueError("objects refer to frames that do not exist")
            yield rows
        yield from (rows.objects for rows in self._tail.rows)

    def _row_chunks(self, table: Table, fields: Sequence[str], count: int) -> Iterator[Rows]:
        """Yield the first `count` rows of a table, a chunk at a time."""
        with self._disk():
            columns = {field: open_column(self._place, table, field) for field in fields}
            if min(column.shape[0] for column in columns.values()) < count:
                raise ValueError(f"the table {table.name} lacks rows")
        for start in range(0, count, table.chunk_rows):
            stop = min(start + table.chunk_rows, count)
            rows = np.zeros(stop - start, table.dtype)
            with self._disk(), capped_threads():
                for field, column in columns.items():
                    rows[field] = column[start:stop]
            yield rows

    def _objects(self, rows: Iterable[tuple[Any, ...]]) -> tuple[ObjectResult, ...]:
        names = self._names
        return tuple(_object(row, names) for row in rows)

    @cached_property
    def _names(self) -> Sequence[str]:
        return self.class_names

    def _record(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a mask store of {len(self)} frames")
        try:
            return read_frame(self._place, self._find(row), row)
        except FileNotFoundError:  # the journal has become a shard, or vice versa
            self._shard = -1
            return read_frame(self._place, self._find(row), row)

    def _find(self, row: int) -> RecordLocation:
        shard = row // FRAMES_PER_SHARD
        if shard != self._shard or row not in self._locations:
            self._locations = find_frames(self._place, shard)
            self._shard = shard
        if row not in self._locations:
            raise ValueError(f"frame {row} is missing")
        return self._locations[row]

    def _read_tail(self) -> Pending:
        """Records that the header does not count yet; none after a shard that was closed early."""
        if self._header.frames % FRAMES_PER_SHARD:
            return Pending()
        shard = self._header.frames // FRAMES_PER_SHARD
        records = read_journal(self._place, shard) or read_shard(self._place, shard) or []
        return pending_of(self._header, [record for _, record in records])

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The mask store {self._place.name} cannot be read: {error.strerror or error}."
            ) from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StoreCorruptError(
                f"The mask store {self._place.name} is damaged: {error}; "
                "maskstream fsck reports where."
            ) from error


def _captured_s(captured: Sequence[float]) -> float | None:
    """Capture time of a live store's row; None if it is unknown."""
    return captured[0] if captured and not math.isnan(captured[0]) else None


def _object(found: tuple[Any, ...], names: Sequence[str]) -> ObjectResult:
    _, object_id, box, score, state, area, *classed = found
    x0, y0, x1, y1 = box.tolist()
    label, seen = "", None
    if classed:
        number, detector_score = classed
        label = names[number] if number >= 0 else ""
        seen = None if math.isnan(detector_score) else detector_score
    return ObjectResult(object_id, (x0, y0, x1, y1), score, TrackState(state), area, label, seen)
