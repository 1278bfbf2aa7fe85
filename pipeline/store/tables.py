"""Tables of a store, one Zarr array per column: append, truncate, open.

Chunks are written directly: through Zarr, few rows take ten times as long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import zarr
from zarr.errors import ContainsGroupError

from maskstream.pipeline.errors import StoreCorruptError
from maskstream.pipeline.store.layout import (
    HIDDEN,
    Rows,
    Table,
    ZarrArray,
    capped_threads,
    chunk_key,
    frame_table,
    object_table,
)
from maskstream.pipeline.store.place import Place
from maskstream.pipeline.store.records import FrameRows, compress, decompress


def append_rows(place: Place, counts: Mapping[str, int], frames: Sequence[FrameRows]) -> None:
    """Append the rows of frames after the committed ones, overwriting what follows these.

    Raises:
        OSError: a write failed.
        StoreCorruptError: a column is damaged.
    """
    if not frames:
        return
    for table, rows in rows_by_table(frames).items():
        if len(rows):
            for field in table.fields:
                _append(place, table, field, counts[table.name], rows)


def rows_by_table(frames: Sequence[FrameRows]) -> Mapping[Table, Rows]:
    """Concatenate the rows of frames (at least one), by table."""
    rows = np.concatenate([f.frame for f in frames])
    objects = np.concatenate([f.objects for f in frames if len(f.objects)] or [frames[0].objects])
    return {
        frame_table(live="captured_s" in (rows.dtype.names or ())): rows,
        object_table(classes="class" in (objects.dtype.names or ())): objects,
        HIDDEN: np.concatenate([f.hidden for f in frames]),
    }


def cut_rows(place: Place, tables: Sequence[Table], counts: Mapping[str, int]) -> None:
    """Truncate every column to the committed rows.

    Raises:
        OSError: a write failed.
        StoreCorruptError: a column is damaged.
    """
    for table in tables:
        for field in table.fields:
            set_length(place, table.path(field), counts[table.name])


def open_column(place: Place, table: Table, field: str) -> ZarrArray:
    """Open one column. Raises `StoreCorruptError` if it is missing or damaged, `OSError`."""
    path = table.path(field)
    try:
        with capped_threads():
            return zarr.open_array(place.arrays(), path=path, mode="r", zarr_format=3)
    except (FileNotFoundError, ContainsGroupError, KeyError, TypeError, ValueError) as error:
        raise _damaged(place, path) from error


def set_length(place: Place, path: str, length: int) -> None:
    """Set the first dimension of an array. Raises `OSError`, `StoreCorruptError`."""
    key = f"{path}/zarr.json"
    try:
        metadata = json.loads(place.read(key))
        metadata["shape"][0] = length
    except (FileNotFoundError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(place, path) from error
    place.replace(key, json.dumps(metadata, indent=2).encode())


def _append(place: Place, table: Table, field: str, start: int, rows: Rows) -> None:
    path, size, stop = table.path(field), table.chunk_rows, start + len(rows)
    dtype = table.dtype[field]
    for chunk in range(start // size, (stop - 1) // size + 1):
        first = chunk * size
        key = chunk_key(path, chunk, 1 + dtype.ndim)
        values = np.zeros((size, *dtype.shape), dtype.base)
        kept = max(0, start - first)
        if kept:
            try:
                stored = np.frombuffer(decompress(place.read(key)), dtype.base)
                values[:kept] = stored.reshape(values.shape)[:kept]
            except (FileNotFoundError, ValueError, RuntimeError) as error:
                raise _damaged(place, path) from error
        new = rows[field][max(0, first - start) : first + size - start]
        values[kept : kept + len(new)] = new
        place.replace(key, compress(values))
    set_length(place, path, stop)


def _damaged(place: Place, path: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{path} of the mask store {place.name} is missing or damaged; maskstream fsck --repair "
        "may restore it."
    )
