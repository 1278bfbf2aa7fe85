"""What a mask store looks like on disk: a Zarr v3 group, format version 1.

    zarr.json         root attributes, see `pipeline.store.header`
    labels            uint16  [T, H, W]  0 background, else the object's id; one chunk a frame
    frames/index      int64   [T]        the source's own frame number
    frames/pts        int64   [T]        in the source's time base; NO_PTS where there is none
    frames/keyframe   bool    [T]
    objects/frame     int64   [N]        row in the frame table, ascending
    objects/id        int64   [N]
    objects/box_xyxy  float32 [N, 4]     pixels, right and bottom exclusive
    objects/score     float32 [N]
    objects/state     uint8   [N]        a `trackers.state.TrackState`
    objects/area      int64   [N]        pixels

Only the first `committed_frames` frames and `committed_objects` objects count: arrays may be
longer while a writer is at work, or after one was killed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from pipeline.errors import StoreCorruptError

FORMAT = "maskstream"
VERSION = 1

ROOT_FILE = "zarr.json"
ROOT_MEMBERS = ("labels", "frames", "objects")
LABELS = "labels"

NO_PTS = int(np.iinfo(np.int64).min)

ZarrArray = zarr.Array[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One growing array of a table."""

    path: str
    dtype: str
    row_shape: tuple[int, ...] = ()
    fill: int = 0


FRAME_COLUMNS = (
    Column("frames/index", "int64"),
    Column("frames/pts", "int64", fill=NO_PTS),
    Column("frames/keyframe", "bool"),
)
OBJECT_COLUMNS = (
    Column("objects/frame", "int64"),
    Column("objects/id", "int64"),
    Column("objects/box_xyxy", "float32", row_shape=(4,)),
    Column("objects/score", "float32"),
    Column("objects/state", "uint8"),
    Column("objects/area", "int64"),
)

_ROWS_PER_CHUNK = 1024


def create_arrays(group: zarr.Group, size_hw: tuple[int, int]) -> None:
    """Create every array of an empty store for label maps of `size_hw`."""
    group.create_array(
        LABELS,
        shape=(0, *size_hw),
        chunks=(1, *size_hw),
        dtype="uint16",
        # Measured on label maps of 720p: shuffling is slower and compresses no better.
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle", typesize=2),
        chunk_key_encoding={"name": "default", "separator": "."},  # one file a frame, no folders
        dimension_names=("frame", "y", "x"),
    )
    for column in FRAME_COLUMNS + OBJECT_COLUMNS:
        group.create_array(
            column.path,
            shape=(0, *column.row_shape),
            chunks=(_ROWS_PER_CHUNK, *column.row_shape),
            dtype=column.dtype,
            fill_value=column.fill,
        )


def open_arrays(group: zarr.Group, *, frames: int, objects: int) -> dict[str, ZarrArray]:
    """Every array of a store by its path.

    Raises:
        StoreCorruptError: one is missing or damaged, or has fewer rows than were committed.
    """
    rows = {LABELS: frames}
    rows |= {column.path: frames for column in FRAME_COLUMNS}
    rows |= {column.path: objects for column in OBJECT_COLUMNS}
    return {path: _open_array(group, path, committed) for path, committed in rows.items()}


def _open_array(group: zarr.Group, path: str, rows: int) -> ZarrArray:
    try:
        array = group[path]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreCorruptError(
            f"{path} of the mask store {group.store} is missing or damaged; "
            "write the store again with --overwrite."
        ) from error
    if not isinstance(array, zarr.Array) or array.shape[0] < rows:
        raise StoreCorruptError(
            f"{path} of the mask store {group.store} lacks some of the {rows} rows committed; "
            "write the store again with --overwrite."
        )
    return array


def capped_threads() -> AbstractContextManager[Any]:
    """Keep Zarr to one worker thread, so that it leaves the cores to the models.

    Blosc needs no cap of its own: Zarr switches its threads off.
    """
    cap: AbstractContextManager[Any] = zarr.config.set(
        {"async.concurrency": 1, "threading.max_workers": 1}
    )
    return cap
