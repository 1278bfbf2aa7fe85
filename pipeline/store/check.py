"""`fsck`: check a store's integrity and repair what can be derived from its frames.

A frame's record holds its label map and table rows, so shard indexes, tables and counts can be
rebuilt from the records; a damaged record is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import StoreCorruptError, StoreError
from maskstream.pipeline.store.header import Header, read_header, write_header
from maskstream.pipeline.store.layout import (
    FRAMES_PER_SHARD,
    LABELS,
    ROOT_FILE,
    capped_threads,
    metadata_files,
    shard_key,
)
from maskstream.pipeline.store.open_place import open_place
from maskstream.pipeline.store.place import Place
from maskstream.pipeline.store.records import FrameRows, Kind, Record, salvage
from maskstream.pipeline.store.recovery import commit_pending, pending_of
from maskstream.pipeline.store.shards import INDEX_BYTES, build_index, read_journal
from maskstream.pipeline.store.tables import open_column, rows_by_table
from maskstream.pipeline.types import LabelMap, SizeHW
from maskstream.trackers.state import TrackState


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Result of `check_store`. frames: number before the first damaged one. problems: sentences."""

    frames: int
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard on disk, finished or still a journal.

    records: undamaged ones in order. index_fits: its index exists and matches them.
    """

    number: int
    records: Sequence[Record]
    finished: bool
    index_fits: bool

    @property
    def frames(self) -> dict[int, Record]:
        """The records of frames, by row."""
        return {r.number: r for r in self.records if r.kind is Kind.FRAME}


def check_store(path: Path | str) -> CheckReport:
    """Check every frame of a store against its checksum, its objects and the tables.

    Raises:
        StoreError: there is no mask store, or it cannot be read.
    """
    place = open_place(path)
    header = read_header(place)
    problems: list[str] = []
    counts = {"frames": 0, "objects": 0, "hidden": 0}
    whole, last_index, damaged = 0, -1, False
    for shard in _shards(place, header):
        if shard.finished and not shard.index_fits:
            problems.append(f"{shard_key(shard.number)}: its index does not match its frames")
        counted: list[FrameRows] = []
        for row in _rows(shard, header):
            record = shard.frames.get(row)
            found = ["is damaged or missing"]
            if record is not None:
                found = _problems_of(record, header.source.size_hw, last_index)
            problems += [f"frame {row}: {problem}" for problem in found]
            if found:
                damaged = True
                continue
            whole += not damaged
            rows = shard.frames[row].frame_rows()
            last_index = int(rows.frame["index"][0])
            if row < header.frames:
                counted.append(rows)
        if not damaged and counted:
            problems += _table_problems(place, counts, counted)
            for table, rows_of_table in rows_by_table(counted).items():
                counts[table.name] += len(rows_of_table)
    if not damaged and counts != header.counts:
        problems.append(f"{ROOT_FILE} counts {dict(header.counts)}, the frames hold {counts}")
    return CheckReport(whole, problems)


def repair_store(path: Path | str) -> CheckReport:
    """Rebuild indexes, tables and counts; truncate the store before the first damaged frame.

    `run --resume` rewrites what was cut off. Returns the result of `check_store` afterward.

    Raises:
        StoreLockedError: it is being written.
        StoreError: there is no mask store, or writing failed.
    """
    place = open_place(path)
    old = read_header(place)
    try:
        lock = place.lock()
        try:
            _repair(place, old)
        finally:
            lock.release()
    except OSError as error:
        raise StoreError(
            f"The mask store {place.name} cannot be repaired: {error.strerror or error}."
        ) from error
    return check_store(path)


def _repair(place: Place, old: Header) -> None:
    header = replace(old, complete=False, frames=0, objects=0, hidden=0, review=None)
    for key, data in metadata_files(old.source.size_hw, live=old.source.live).items():
        place.replace(key, data)
    kept = set()
    for number in count():
        shard = _read(place, number)
        records = [] if shard is None else _undamaged(shard, old.source.size_hw)
        pending = pending_of(header, records)
        packed = b"".join(record.pack() for record in records)
        full = len(pending.chunks) == FRAMES_PER_SHARD
        if full or header.frames + len(pending.chunks) == old.frames > header.frames:
            place.replace(shard_key(number), packed + build_index(pending.chunks))
            kept.add(shard_key(number))
            header = commit_pending(place, header, pending)
        elif records:
            place.journal(number * FRAMES_PER_SHARD, packed).sync()
            kept |= set(place.keys(f"{LABELS}/journal.{number * FRAMES_PER_SHARD}"))
        if not full:
            break
    for key in [*place.keys(f"{LABELS}/c."), *place.keys(f"{LABELS}/journal.")]:
        if key not in kept:
            place.delete(key)
    write_header(place, replace(header, complete=old.complete and header.frames == old.frames))


def _shards(place: Place, header: Header) -> Iterator[_Shard]:
    """Yield every shard that the header counts, and those after it."""
    for number in count():
        shard = _read(place, number)
        if number * FRAMES_PER_SHARD >= header.frames and shard is None:
            return
        yield shard or _Shard(number, [], finished=False, index_fits=False)


def _rows(shard: _Shard, header: Header) -> Sequence[int]:
    """Rows that a shard should have: the counted ones, and those appended since."""
    first = shard.number * FRAMES_PER_SHARD
    stop = max(
        min(first + FRAMES_PER_SHARD, header.frames), *(row + 1 for row in (*shard.frames, -1))
    )
    return range(first, stop)


def _read(place: Place, number: int) -> _Shard | None:
    try:
        data = place.read(shard_key(number))
    except FileNotFoundError:
        records = [record for _, record in read_journal(place, number)]
        return _Shard(number, records, finished=False, index_fits=False) if records else None
    found = list(salvage(data[:-INDEX_BYTES]))
    index = build_index(
        {
            r.number: (offset + r.size - len(r.rows) - len(r.chunk), len(r.chunk))
            for offset, r in found
            if r.kind is Kind.FRAME
        }
    )
    fits = data[-INDEX_BYTES:] == index
    return _Shard(number, [record for _, record in found], finished=True, index_fits=fits)


def _undamaged(shard: _Shard, size_hw: SizeHW) -> list[Record]:
    """The records before the first frame that is missing or inconsistent."""
    kept: list[Record] = []
    row, last_index = shard.number * FRAMES_PER_SHARD, -1
    for record in shard.records:
        if record.kind is Kind.FRAME:
            if record.number != row or _problems_of(record, size_hw, last_index):
                break
            last_index = int(record.frame_rows().frame["index"][0])
            row += 1
        kept.append(record)
    return kept


def _problems_of(record: Record, size_hw: SizeHW, last_index: int) -> list[str]:
    """Inconsistencies within a frame whose checksum matches."""
    try:
        labels, rows = record.labels(size_hw), record.frame_rows()
    except (ValueError, RuntimeError) as error:
        return [f"cannot be decoded: {error}"]
    objects, (height, width) = rows.objects, size_hw
    x0, y0, x1, y1 = objects["box_xyxy"].T
    areas = np.bincount(labels.reshape(-1), minlength=1)
    ids = objects["id"]
    known = (ids > 0) & (ids < len(areas))
    areas_of_ids = np.where(known, areas[np.where(known, ids, 0)], 0)
    checks = {
        "its source frame index does not increase": int(rows.frame["index"][0]) > last_index,
        "its rows belong to another frame": bool(
            np.all(objects["frame"] == record.number)
            and np.all(rows.hidden["frame"] == record.number)
        ),
        "it has labels without an object": set(np.flatnonzero(areas).tolist())
        <= {0, *ids.tolist()},
        "an object is listed twice": len(set(ids.tolist())) == len(ids),
        "an area is not that of the label map": bool(np.all(areas_of_ids == objects["area"])),
        "a score lies outside 0 to 1": bool(
            np.all((objects["score"] >= 0) & (objects["score"] <= 1))
        ),
        "a state does not exist": bool(np.all(objects["state"] <= max(TrackState))),
        "a box lies outside the image": bool(
            np.all((x0 >= 0) & (x0 <= x1) & (x1 <= width) & (y0 >= 0) & (y0 <= y1) & (y1 <= height))
        ),
        "a covered part contradicts the label map": _covered_runs_fit(rows, labels),
    }
    return [problem for problem, holds in checks.items() if not holds]


def _covered_runs_fit(rows: FrameRows, labels: LabelMap) -> bool:
    """Whether covered runs belong to listed objects, within one row and under another object."""
    runs = rows.hidden
    start, length = runs["start"].astype(np.int64), runs["length"].astype(np.int64)
    width = labels.shape[1]
    if np.any((length < 1) | (start + length > labels.size) | (start % width + length > width)):
        return False
    if not np.all(np.isin(runs["id"], rows.objects["id"])):
        return False
    flat = labels.reshape(-1)
    return all(
        not np.any(np.isin(flat[at : at + n], (0, object_id)))
        for at, n, object_id in zip(start, length, runs["id"], strict=True)
    )


def _table_problems(place: Place, start: dict[str, int], frames: Sequence[FrameRows]) -> list[str]:
    """Columns whose values from `start` on differ from the frames' records."""
    problems = []
    for table, rows in rows_by_table(frames).items():
        first = start[table.name]
        for field in table.fields:
            try:
                with capped_threads():
                    stored = np.asarray(open_column(place, table, field)[first : first + len(rows)])
            except (StoreCorruptError, ValueError, RuntimeError):
                stored = rows[field][:0]
            if not np.array_equal(stored, rows[field], equal_nan=field == "captured_s"):
                problems.append(f"{table.path(field)}: rows from {first} on differ from the frames")
    return problems
