"""Append results to a mask store so that a kill at any instant loses only the last few frames.

Label maps go to disk at once, into room reserved beyond the committed rows. The rows of the two
tables are collected and appended by a commit, which ends by raising the counts in the root
attributes. Zarr replaces files atomically, so a reader finds the counts before a commit or after
it, and whatever lies beyond them is cut off when the store is resumed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import zarr
from zarr.storage import LocalStore

from pipeline.errors import StoreError, StoreExistsError
from pipeline.store.header import Header, is_store, read_header
from pipeline.store.layout import (
    FRAME_COLUMNS,
    LABELS,
    NO_PTS,
    OBJECT_COLUMNS,
    ROOT_FILE,
    ROOT_MEMBERS,
    Column,
    capped_threads,
    create_arrays,
    open_arrays,
)
from pipeline.types import Frame, FrameResult, SourceInfo

StoreMode = Literal["create", "overwrite", "resume"]

FRAMES_PER_COMMIT = 64
SECONDS_PER_COMMIT = 2.0

_LABEL_ROOM = 64  # frames the label array grows by


class MaskStoreWriter:
    """A `Sink` that appends results to the store at `path`; one writer a store.

    `attributes` are JSON values to keep with a new store; a resumed store keeps those it has.
    `mode` says what to do where something exists already: 'create' refuses, 'overwrite' replaces
    a mask store and nothing else, 'resume' goes on after the last committed frame (and creates
    what is missing). `monotonic` tells seconds.

    Raises:
        StoreExistsError: `path` is taken. StoreCorruptError: the store to resume is damaged.
        StoreError: it belongs to another source, or `path` cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        info: SourceInfo,
        attributes: Mapping[str, Any],
        mode: StoreMode = "create",
        frames_per_commit: int = FRAMES_PER_COMMIT,
        seconds_per_commit: float = SECONDS_PER_COMMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._frames_per_commit = frames_per_commit
        self._seconds_per_commit = seconds_per_commit
        self._monotonic = monotonic
        self._committed_at = monotonic()
        self._frame_rows: list[tuple[Any, ...]] = []  # in the order of FRAME_COLUMNS
        self._object_rows: list[tuple[Any, ...]] = []  # in the order of OBJECT_COLUMNS

        with self._zarr():
            resumed = _header_to_resume(path, info) if mode == "resume" else None
            self._header = resumed or Header(info, attributes)
            if resumed is None:
                _make_room(path, mode)
                self._group = _create_group(path, self._header)
            else:
                self._group = zarr.open_group(LocalStore(path), mode="r+", zarr_format=3)
            self._arrays = open_arrays(
                self._group,
                frames=self._header.committed_frames,
                objects=self._header.committed_objects,
            )
            self._cut_to_committed()

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes the store keeps: the given ones, or a resumed store's own."""
        return self._header.attributes

    @property
    def committed_frames(self) -> int:
        """Frames that are safe on disk; right after resuming: how many need no rewriting."""
        return self._header.committed_frames

    @property
    def last_committed_index(self) -> int | None:
        """The source's number of the last committed frame, None before the first."""
        if not self.committed_frames:
            return None
        with self._zarr():
            return int(np.asarray(self._arrays["frames/index"][self.committed_frames - 1]))

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take the result of the next frame.

        Raises:
            StoreError: it does not fit the store, or the disk refused; what was committed stays.
        """
        self._check(result)
        row = self.committed_frames + len(self._frame_rows)
        with self._zarr():
            if row == self._arrays[LABELS].shape[0]:
                self._resize(LABELS, row + _LABEL_ROOM)
            self._arrays[LABELS][row] = result.labels
        pts = NO_PTS if result.pts is None else result.pts
        self._frame_rows.append((result.index, pts, result.keyframe))
        self._object_rows.extend(
            (row, found.id, found.box_xyxy, found.score, found.state, found.area)
            for found in result.objects
        )
        overdue = self._monotonic() - self._committed_at >= self._seconds_per_commit
        if overdue or len(self._frame_rows) >= self._frames_per_commit:
            self._commit(complete=False)

    def close(self, *, complete: bool) -> None:
        """Commit what is left; `complete` says that the source was processed to its end.

        Raises:
            StoreError: the disk refused; what was committed before stays.
        """
        with self._zarr():
            self._resize(LABELS, self.committed_frames + len(self._frame_rows))
        self._commit(complete=complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(complete=error is None)

    def _cut_to_committed(self) -> None:
        self._resize(LABELS, self._header.committed_frames)
        for column in FRAME_COLUMNS:
            self._resize(column.path, self._header.committed_frames)
        for column in OBJECT_COLUMNS:
            self._resize(column.path, self._header.committed_objects)

    def _resize(self, path: str, rows: int) -> None:
        array = self._arrays[path]
        array.resize((rows, *array.shape[1:]))

    def _check(self, result: FrameResult) -> None:
        source = self._header.source
        if result.labels.shape != source.size_hw or result.labels.dtype != np.uint16:
            raise StoreError(
                f"The label map of frame {result.index} is {result.labels.dtype} "
                f"{result.labels.shape}, the store holds uint16 {source.size_hw}."
            )
        if result.time_base != source.time_base:
            raise StoreError(
                f"Frame {result.index} has time base {result.time_base}, "
                f"the store has {source.time_base}."
            )

    def _commit(self, *, complete: bool) -> None:
        before = self._header
        after = replace(
            before,
            complete=complete,
            committed_frames=before.committed_frames + len(self._frame_rows),
            committed_objects=before.committed_objects + len(self._object_rows),
        )
        with self._zarr():
            self._append(FRAME_COLUMNS, before.committed_frames, self._frame_rows)
            self._append(OBJECT_COLUMNS, before.committed_objects, self._object_rows)
            self._group.update_attributes(after.to_json())
        self._header = after
        self._committed_at = self._monotonic()
        self._frame_rows.clear()
        self._object_rows.clear()

    def _append(
        self, columns: Sequence[Column], start: int, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        if not rows:
            return
        stop = start + len(rows)
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            self._resize(column.path, stop)
            self._arrays[column.path][start:stop] = np.array(values, dtype=column.dtype)

    @contextmanager
    def _zarr(self) -> Iterator[None]:
        try:
            with capped_threads():
                yield
        except OSError as error:
            raise StoreError(
                f"The mask store {self.path} cannot be written: {error.strerror or error}."
            ) from error


def _header_to_resume(path: Path, info: SourceInfo) -> Header | None:
    if not (path / ROOT_FILE).exists():
        return None
    header = read_header(path)
    for what in ("name", "size_hw", "time_base"):
        stored, given = getattr(header.source, what), getattr(info, what)
        if stored != given:
            raise StoreError(
                f"The mask store {path} was made from another source ({what} {stored}, now "
                f"{given}), so it cannot be resumed; choose another output or give --overwrite."
            )
    return header if header.committed_frames else None


def _create_group(path: Path, header: Header) -> zarr.Group:
    group = zarr.create_group(LocalStore(path), zarr_format=3, attributes=header.to_json())
    create_arrays(group, header.source.size_hw)
    return group


def _make_room(path: Path, mode: StoreMode) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not is_store(path):
        raise StoreExistsError(f"{path} exists and is not a mask store; choose another output.")
    if mode == "create":
        raise StoreExistsError(
            f"There is a mask store at {path} already; "
            "give --overwrite to replace it or --resume to go on with it."
        )
    for member in ROOT_MEMBERS:
        if (path / member).exists():
            shutil.rmtree(path / member)
    (path / ROOT_FILE).unlink()  # last, so that a kill leaves something that is still a store
