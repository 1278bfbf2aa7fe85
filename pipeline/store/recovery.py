"""Recovery of a store after a writer ended at any instant.

The rows of a finished shard are written to the tables, then the header counts them. Each step can
be repeated: frames that the header does not count are in the journal, or in a shard with the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from maskstream.pipeline.store.header import Header, write_header
from maskstream.pipeline.store.layout import FRAMES_PER_SHARD, LABELS, shard_key
from maskstream.pipeline.store.place import Journal, Place
from maskstream.pipeline.store.records import HEAD_BYTES, FrameRows, Kind, Record
from maskstream.pipeline.store.shards import build_index, read_journal, read_shard
from maskstream.pipeline.store.tables import append_rows, cut_rows, set_length


@dataclass(slots=True)
class Pending:
    """Contents of the journal that are not committed: at most a shard's frames, without pixels.

    chunks: offset and length of every frame's chunk by row, for the shard's index. rows: not in the
    tables yet. events: not in the header yet.
    """

    chunks: dict[int, tuple[int, int]] = field(default_factory=dict)
    rows: list[FrameRows] = field(default_factory=list)
    events: list[Mapping[str, object]] = field(default_factory=list)

    def add(self, record: Record, offset: int, rows: FrameRows | None = None) -> None:
        """Add the record at `offset` of the journal. Raises `ValueError` if it is damaged."""
        if record.kind is Kind.FRAME:
            self.chunks[record.number] = offset + HEAD_BYTES, len(record.chunk)
            self.rows.append(record.frame_rows() if rows is None else rows)
        else:
            self.events.append(record.event())


def commit_pending(
    place: Place,
    header: Header,
    pending: Pending,
    *,
    complete: bool = False,
    review: Sequence[Mapping[str, Any]] | None = None,
) -> Header:
    """Write the pending rows of a finished shard to the tables, then to the header's counts.

    Raises:
        OSError: a write failed.
        StoreCorruptError: a table is damaged.
    """
    append_rows(place, header.counts, pending.rows)
    after = replace(
        header,
        complete=complete,
        frames=header.frames + len(pending.rows),
        objects=header.objects + sum(len(r.objects) for r in pending.rows),
        hidden=header.hidden + sum(len(r.hidden) for r in pending.rows),
        events=[*header.events, *pending.events],
        review=review,
    )
    set_length(place, LABELS, after.frames)
    write_header(place, after)
    return after


def recover(place: Place, header: Header) -> tuple[Header, Pending, Journal]:
    """Complete or undo the last writer's unfinished steps, and open the journal.

    Raises:
        OSError: a read or write failed.
        StoreCorruptError: a table is damaged.
        ValueError: a record is damaged although its checksum matches.
    """
    place.clear(leftovers_only=True)
    shard = header.frames // FRAMES_PER_SHARD
    first_row = shard * FRAMES_PER_SHARD
    finished = read_shard(place, shard)
    found = read_journal(place, shard) if finished is None else finished
    records = [record for _, record in found]
    if finished is not None and sum(r.kind is Kind.FRAME for r in records) < FRAMES_PER_SHARD:
        header = _reopen_shard(place, header, shard, records)
    elif header.complete:
        header = replace(header, complete=False, review=None)
        write_header(place, header)
    pending = pending_of(header, records)
    packed = b"".join(record.pack() for record in records)
    if len(pending.chunks) < FRAMES_PER_SHARD:
        return header, pending, place.journal(first_row, packed)
    if finished is None:
        place.journal(first_row, packed).finish(shard_key(shard), build_index(pending.chunks))
    header = commit_pending(place, header, pending)
    place.drop_journal(first_row)
    return header, Pending(), place.journal(first_row + FRAMES_PER_SHARD)


def _reopen_shard(place: Place, header: Header, shard: int, records: Sequence[Record]) -> Header:
    """Turn a shard that was closed before it was full back into the journal."""
    first_row = shard * FRAMES_PER_SHARD
    place.journal(first_row, b"".join(r.pack() for r in records)).close()
    frames = [r.frame_rows() for r in records if r.kind is Kind.FRAME]
    counted = frames[: header.frames - first_row]
    header = replace(
        header,
        complete=False,
        review=None,
        frames=first_row,
        objects=header.objects - sum(len(f.objects) for f in counted),
        hidden=header.hidden - sum(len(f.hidden) for f in counted),
    )
    write_header(place, header)
    place.delete(shard_key(shard))
    cut_rows(place, header.tables, header.counts)
    set_length(place, LABELS, header.frames)
    return header


def pending_of(header: Header, records: Sequence[Record]) -> Pending:
    """The records of a journal that the header does not count."""
    pending = Pending()
    offset = 0
    for record in records:
        known = header.frames if record.kind is Kind.FRAME else len(header.events)
        if record.number >= known:
            pending.add(record, offset)
        offset += record.size
    return pending
