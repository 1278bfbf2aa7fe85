"""On-disk layout of a mask store, format versions 2 and 3: `docs/reference/store.md`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.core.chunk_key_encodings import ChunkKeyEncodingLike
from zarr.storage import MemoryStore

FORMAT = "maskstream"
VERSION = 2
CLASSES_VERSION = 3
"""Version 2 with the classes of objects; written where a detector names them."""

ROOT_FILE = "zarr.json"
LABELS = "labels"
LOCK_FILE = "labels/lock"

FRAMES_PER_SHARD = 64
NO_PTS = int(np.iinfo(np.int64).min)

COMPRESSOR: Literal["zstd"] = "zstd"
COMPRESSION_LEVEL = 1
BLOCK_BYTES = 256 * 1024  # Blosc's block size; its default is slower and compresses less

_ONE_FOLDER: ChunkKeyEncodingLike = {"name": "default", "separator": "."}

ZarrArray = zarr.Array[Any]
Rows = npt.NDArray[np.void]
"""Rows of one table: a structured array of its `dtype`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table stored as one array per column, `name/field`.

    dtype: one field per column. chunk_rows: rows per chunk.
    """

    name: str
    dtype: np.dtype[np.void]
    chunk_rows: int

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.dtype.names or ()

    def path(self, field: str) -> str:
        """The path of a column's array."""
        return f"{self.name}/{field}"


_FRAME_FIELDS = [("index", "<i8"), ("pts", "<i8"), ("keyframe", "?")]
FRAMES = Table("frames", np.dtype(_FRAME_FIELDS), 1024)
LIVE_FRAMES = Table("frames", np.dtype([*_FRAME_FIELDS, ("captured_s", "<f8")]), 1024)
"""Frame table of live sources, with capture times."""
_OBJECT_FIELDS: list[Any] = [
    ("frame", "<i8"),
    ("id", "<i8"),
    ("box_xyxy", "<f4", (4,)),
    ("score", "<f4"),
    ("state", "u1"),
    ("area", "<i8"),
]
_CLASS_FIELDS: list[Any] = [("class", "<i2"), ("detector_score", "<f4")]
OBJECTS = Table("objects", np.dtype(_OBJECT_FIELDS), 4096)
CLASSED_OBJECTS = Table("objects", np.dtype([*_OBJECT_FIELDS, *_CLASS_FIELDS]), 4096)
"""Object table of stores with classes: number of the class, -1 for none, and the detector's score,
NaN for none."""
NO_CLASS = -1
HIDDEN = Table(
    "hidden",
    np.dtype([("frame", "<i8"), ("id", "<i8"), ("start", "<u4"), ("length", "<u4")]),
    16384,
)


def frame_table(*, live: bool) -> Table:
    """The frame table of a store."""
    return LIVE_FRAMES if live else FRAMES


def object_table(*, classes: bool) -> Table:
    """The object table of a store."""
    return CLASSED_OBJECTS if classes else OBJECTS


def tables(*, live: bool, classes: bool = False) -> tuple[Table, Table, Table]:
    """All tables of a store, by whether its source is live and its objects have classes."""
    return frame_table(live=live), object_table(classes=classes), HIDDEN


def chunk_key(path: str, number: int, dimensions: int) -> str:
    """Key of a chunk (or shard) of an array that is chunked along its first dimension only."""
    return f"{path}/c.{number}" + ".0" * (dimensions - 1)


def shard_key(shard: int) -> str:
    """Key of a shard of the label array."""
    return chunk_key(LABELS, shard, 3)


def metadata_files(
    size_hw: tuple[int, int], *, live: bool, classes: bool = False
) -> dict[str, bytes]:
    """The `zarr.json` files of all arrays and groups below the root of an empty store, by key."""
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    _create_labels(group, LABELS, (0, *size_hw), _ONE_FOLDER)
    for table in tables(live=live, classes=classes):
        group.create_group(table.name)
        for field in table.fields:
            dtype = table.dtype[field]
            group.create_array(
                table.path(field),
                shape=(0, *dtype.shape),
                chunks=(table.chunk_rows, *dtype.shape),
                dtype=dtype.base,
                compressors=_codec(dtype.base.itemsize),
                chunk_key_encoding=_ONE_FOLDER,
            )
    return {key: data.to_bytes() for key, data in files.items() if key != ROOT_FILE}


def label_array_files(path: str, shape: tuple[int, int, int]) -> dict[str, bytes]:
    """The `zarr.json` of a label array like a store's, uint16 [T, H, W], for other groups.

    Its shards are `path/c/K/0/0`.
    """
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    _create_labels(group, path, shape, {"name": "default", "separator": "/"})
    return {key: data.to_bytes() for key, data in files.items() if key != ROOT_FILE}


def _create_labels(
    group: zarr.Group, path: str, shape: tuple[int, int, int], keys: ChunkKeyEncodingLike
) -> None:
    size_hw = shape[1:]
    group.create_array(
        path,
        shape=shape,
        shards=(FRAMES_PER_SHARD, *size_hw),
        chunks=(1, *size_hw),
        dtype="uint16",
        compressors=_codec(2),
        chunk_key_encoding=keys,
        dimension_names=("t", "y", "x"),
    )


def _codec(typesize: int) -> BloscCodec:
    return BloscCodec(
        cname=COMPRESSOR,
        clevel=COMPRESSION_LEVEL,
        shuffle="noshuffle",
        typesize=typesize,
        blocksize=BLOCK_BYTES,
    )


def capped_threads() -> AbstractContextManager[Any]:
    """Limit Zarr to one worker thread, which leaves the cores to the models.

    Blosc needs no limit: Zarr disables its threads.
    """
    cap: AbstractContextManager[Any] = zarr.config.set(
        {"async.concurrency": 1, "threading.max_workers": 1}
    )
    return cap
