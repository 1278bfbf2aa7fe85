"""Records of frames and events, the same bytes in the journal and in the finished shard.

    28 bytes   head: magic, kind, number, bytes of the chunk, bytes of the rows, CRC-32C of all else
    chunk      the label map as the label array's inner codec writes it (Blosc), so that the shard's
               index can point at it
    rows       Blosc of the frame's rows of the tables; of an event: its JSON

A truncated or damaged record does not match its checksum; the records before it are valid.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from maskstream.pipeline.store.layout import (
    BLOCK_BYTES,
    COMPRESSION_LEVEL,
    COMPRESSOR,
    HIDDEN,
    Rows,
    Table,
    frame_table,
    object_table,
)
from maskstream.pipeline.types import LabelMap, SizeHW

MAGIC = b"MSr2"
HEAD_BYTES = 28

_HEAD = struct.Struct("<4sIQIII")
_CHECKED_HEAD_BYTES = 24  # those before the checksum
_COUNTS = struct.Struct("<II")


class Kind(IntEnum):
    """Kind of a record."""

    FRAME = 1
    EVENT = 2


_KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class FrameRows:
    """One frame's rows of the tables: `frames` [1], `objects` [N], `hidden` [R]."""

    frame: Rows
    objects: Rows
    hidden: Rows


@dataclass(frozen=True, slots=True)
class Record:
    """One record. number: the frame's row in the store, or the event's position in the log."""

    kind: Kind
    number: int
    chunk: bytes
    rows: bytes

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return HEAD_BYTES + len(self.chunk) + len(self.rows)

    def pack(self) -> bytes:
        """Serialize the record."""
        head = _HEAD.pack(MAGIC, self.kind, self.number, len(self.chunk), len(self.rows), 0)
        crc = _checksum(head, self.chunk, self.rows)
        head = _HEAD.pack(MAGIC, self.kind, self.number, len(self.chunk), len(self.rows), crc)
        return b"".join((head, self.chunk, self.rows))

    def frame_rows(self) -> FrameRows:
        """Parse the rows of a frame. Raises `ValueError` if they are malformed."""
        data = decompress(self.rows)
        objects, hidden = _COUNTS.unpack_from(data)
        at = _COUNTS.size
        counts = (1, objects, hidden)
        parts = []
        for table, count in zip(_tables_of(len(data) - at, counts), counts, strict=True):
            parts.append(np.frombuffer(data, table.dtype, count, at))
            at += count * table.dtype.itemsize
        return FrameRows(*parts)

    def labels(self, size_hw: SizeHW) -> LabelMap:
        """Decode the label map uint16 [H, W]. Raises `ValueError` or `RuntimeError`."""
        flat = np.frombuffer(decompress(self.chunk), "<u2")
        return flat.reshape(size_hw)

    def event(self) -> dict[str, Any]:
        """Parse the event. Raises `ValueError`."""
        return dict(json.loads(self.rows))


def _tables_of(size: int, counts: tuple[int, int, int]) -> tuple[Table, Table, Table]:
    """The tables whose rows, so many of each, take `size` bytes.

    Capture times add 8 bytes, classes 6 an object: no two kinds of store have the same size. Raises
    `ValueError` if there are none.
    """
    for live, classes in product((False, True), (False, True)):
        chosen = frame_table(live=live), object_table(classes=classes), HIDDEN
        if size == sum(n * table.dtype.itemsize for n, table in zip(counts, chosen, strict=True)):
            return chosen
    raise ValueError(f"its rows do not fit in {size} bytes")


def frame_record(row: int, labels: LabelMap, rows: FrameRows) -> Record:
    """Make the record of a frame; compresses its label map, uint16 [H, W]."""
    counts = _COUNTS.pack(len(rows.objects), len(rows.hidden))
    tables = (rows.frame.tobytes(), rows.objects.tobytes(), rows.hidden.tobytes())
    chunk = compress(np.ascontiguousarray(labels))
    return Record(Kind.FRAME, row, chunk, compress(b"".join((counts, *tables))))


def event_record(number: int, event: Mapping[str, Any]) -> Record:
    """Make the record of an event, a JSON object."""
    return Record(Kind.EVENT, number, b"", json.dumps(event).encode())


def body_bytes(head: bytes) -> int:
    """Bytes that follow a record's head; 0 if it is not one."""
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        return 0
    _, _, _, chunk, rows, _ = _HEAD.unpack_from(head)
    return int(chunk + rows)


def unpack(data: bytes, offset: int = 0) -> Record | None:
    """Parse the record at `offset`; None if it is incomplete or damaged."""
    head = data[offset : offset + HEAD_BYTES]
    start = offset + HEAD_BYTES
    stop = start + body_bytes(head)
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC) or stop > len(data):
        return None
    _, kind, number, chunk_bytes, _, crc = _HEAD.unpack(head)
    chunk, rows = data[start : start + chunk_bytes], data[start + chunk_bytes : stop]
    if crc != _checksum(head, chunk, rows) or kind not in _KINDS:
        return None
    return Record(Kind(kind), number, chunk, rows)


def scan(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield valid records with their offsets, from the start to the first invalid one."""
    offset = 0
    while (record := unpack(data, offset)) is not None:
        yield offset, record
        offset += record.size


def salvage(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield all valid records with their offsets, also those after damaged ones."""
    offset = data.find(MAGIC)
    while offset >= 0:
        record = unpack(data, offset)
        if record is not None:
            yield offset, record
        offset = data.find(MAGIC, offset + (1 if record is None else record.size))


def compress(data: npt.NDArray[Any] | bytes) -> bytes:
    """Compress with the Blosc settings of a store's arrays."""
    packed: bytes = blosc.compress(
        data, COMPRESSOR.encode(), COMPRESSION_LEVEL, blosc.NOSHUFFLE, BLOCK_BYTES
    )
    return packed


def decompress(data: bytes) -> bytes:
    """Decompress Blosc. Raises `RuntimeError` or `ValueError` if the data is damaged."""
    raw: bytes = blosc.decompress(data)
    return raw


def _checksum(head: bytes, chunk: bytes, rows: bytes) -> int:
    crc = google_crc32c.value(head[:_CHECKED_HEAD_BYTES])
    return int(google_crc32c.extend(google_crc32c.extend(crc, chunk), rows))
