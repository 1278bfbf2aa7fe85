"""Shards of the label array, and the journal of the next shard: locate and read frames.

A finished shard is the journal's bytes followed by the index of Zarr's `sharding_indexed` codec:
offset and length of every chunk as little-endian uint64, then their CRC-32C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import google_crc32c
import numpy as np

from maskstream.pipeline.errors import StoreCorruptError
from maskstream.pipeline.store.layout import FRAMES_PER_SHARD, shard_key
from maskstream.pipeline.store.place import Place
from maskstream.pipeline.store.records import HEAD_BYTES, Kind, Record, body_bytes, scan, unpack

_CRC_BYTES = 4
INDEX_BYTES = FRAMES_PER_SHARD * 16 + _CRC_BYTES
_NO_CHUNK = np.iinfo(np.uint64).max


@dataclass(frozen=True, slots=True)
class RecordLocation:
    """Location of a frame's record: a key of the store and an offset in bytes."""

    key: str
    offset: int


def build_index(chunks: Mapping[int, tuple[int, int]]) -> bytes:
    """Build a shard's index from offset and length in bytes of each row's chunk."""
    entries = np.full((FRAMES_PER_SHARD, 2), _NO_CHUNK, "<u8")
    for row, chunk in chunks.items():
        entries[row % FRAMES_PER_SHARD] = chunk
    data = entries.tobytes()
    crc: int = google_crc32c.value(data)
    return data + crc.to_bytes(_CRC_BYTES, "little")


def parse_index(data: bytes, shard: int) -> dict[int, int]:
    """Parse a shard's index to record offsets by row. Raises `ValueError` if it is damaged."""
    body = data[:-_CRC_BYTES]
    if len(data) != INDEX_BYTES or google_crc32c.value(body) != int.from_bytes(
        data[-_CRC_BYTES:], "little"
    ):
        raise ValueError("its index does not match its checksum")
    entries = np.frombuffer(body, "<u8").reshape(FRAMES_PER_SHARD, 2)
    first = shard * FRAMES_PER_SHARD
    return {
        first + slot: int(offset) - HEAD_BYTES
        for slot, offset in enumerate(entries[:, 0])
        if offset != _NO_CHUNK
    }


def find_frames(place: Place, shard: int) -> dict[int, RecordLocation]:
    """Locations of a shard's frames by row, in the finished shard or the journal.

    Raises:
        StoreCorruptError: the shard's index is damaged.
        OSError: it cannot be read.
    """
    key = shard_key(shard)
    for _ in range(2):  # the journal may become the shard between the two reads
        try:
            offsets = parse_index(place.read(key, -INDEX_BYTES), shard)
            return {row: RecordLocation(key, offset) for row, offset in offsets.items()}
        except FileNotFoundError:
            pass
        except ValueError as error:
            raise StoreCorruptError(
                f"{key} of the mask store {place.name} is damaged: {error}; maskstream fsck "
                "--repair may restore it."
            ) from error
        locations = {
            r.number: location for location, r in read_journal(place, shard) if r.kind is Kind.FRAME
        }
        if locations:
            return locations
    return {}


def read_journal(place: Place, shard: int) -> list[tuple[RecordLocation, Record]]:
    """The journal's valid records in order; empty if there is no journal."""
    first_row = shard * FRAMES_PER_SHARD
    found: list[tuple[RecordLocation, Record]] = []
    part = 0
    while (key := place.journal_part(first_row, part)) is not None:
        try:
            data = place.read(key)
        except FileNotFoundError:
            break
        found += [(RecordLocation(key, offset), record) for offset, record in scan(data)]
        part += 1
    return _in_sequence(found, first_row)


def read_shard(place: Place, shard: int) -> list[tuple[RecordLocation, Record]] | None:
    """A finished shard's records in order; None if there is none."""
    key = shard_key(shard)
    try:
        data = place.read(key)
    except FileNotFoundError:
        return None
    found = [(RecordLocation(key, offset), record) for offset, record in scan(data)]
    return _in_sequence(found, shard * FRAMES_PER_SHARD)


def read_frame(place: Place, location: RecordLocation, row: int) -> Record:
    """Read the record of the frame in `row`.

    Raises:
        FileNotFoundError: the journal has become a shard, or was deleted.
        OSError: reading failed.
        ValueError: it is damaged.
    """
    head = place.read(location.key, location.offset, location.offset + HEAD_BYTES)
    body = place.read(
        location.key, location.offset + HEAD_BYTES, location.offset + HEAD_BYTES + body_bytes(head)
    )
    record = unpack(head + body)
    if record is None or (record.kind, record.number) != (Kind.FRAME, row):
        raise ValueError(f"frame {row} does not match its checksum")
    return record


def _in_sequence(
    found: list[tuple[RecordLocation, Record]], first_row: int
) -> list[tuple[RecordLocation, Record]]:
    """The records before the first frame out of order (a journal that was restarted has some)."""
    row = first_row
    for at, (_, record) in enumerate(found):
        if record.kind is not Kind.FRAME:
            continue
        if record.number != row:
            return found[:at]
        row += 1
    return found
