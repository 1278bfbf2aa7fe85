"""Append results to a mask store; a kill at any instant loses only what was not synced.

Every frame is compressed once, in the caller's thread, and appended to the journal, the growing
shard. When the shard is full its index is appended, the journal is renamed to the shard, and the
frames' rows are written to the tables (for the order see `maskstream.pipeline.store.recovery`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from maskstream.pipeline.errors import StoreCorruptError, StoreError, StoreExistsError
from maskstream.pipeline.store.classes import CLASS, class_names
from maskstream.pipeline.store.covered import runs_of
from maskstream.pipeline.store.header import (
    Header,
    is_emptied,
    is_store,
    mark_emptying,
    read_header,
    write_header,
)
from maskstream.pipeline.store.layout import (
    FRAMES_PER_SHARD,
    NO_CLASS,
    NO_PTS,
    Rows,
    frame_table,
    metadata_files,
    object_table,
    shard_key,
)
from maskstream.pipeline.store.open_place import open_place
from maskstream.pipeline.store.place import Journal, Place
from maskstream.pipeline.store.records import FrameRows, Record, event_record, frame_record
from maskstream.pipeline.store.recovery import Pending, commit_pending, recover
from maskstream.pipeline.store.shards import build_index
from maskstream.pipeline.store.tables import open_column
from maskstream.pipeline.types import Frame, FrameResult, SourceInfo

StoreMode = Literal["create", "overwrite", "resume"]

FRAMES_PER_COMMIT = 64
SECONDS_PER_COMMIT = 2.0

_SAME_SOURCE = ("size_hw", "time_base", "live")


class MaskStoreWriter:
    """A `Sink` that appends results to the store at `path`, a folder or a URL.

    attributes: JSON values of a new store; a resumed store keeps its own. The caller must check
    that it was made from the same source in the same way. mode: if something exists already,
    'create' refuses, 'overwrite' replaces a mask store and nothing else, 'resume' continues after
    the last committed frame (or creates the store). span: requested part of the source, JSON
    values. classes: store the classes of objects; a resumed store stays as it is.
    frames_per_commit, seconds_per_commit: a commit makes appended frames durable after so many
    frames or seconds. monotonic: clock in seconds. A store has one writer at a time.

    Raises:
        StoreExistsError: `path` exists.
        StoreLockedError: it is being written.
        StoreCorruptError: the store to resume is damaged.
        StoreError: it has another size or time base, or `path` cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        info: SourceInfo,
        attributes: Mapping[str, Any],
        span: Mapping[str, Any] | None = None,
        classes: bool = False,
        mode: StoreMode = "create",
        frames_per_commit: int = FRAMES_PER_COMMIT,
        seconds_per_commit: float = SECONDS_PER_COMMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._frames_per_commit = min(frames_per_commit, FRAMES_PER_SHARD)
        self._seconds_per_commit = seconds_per_commit
        self._monotonic = monotonic
        self._committed_at = monotonic()
        self._uncommitted = 0
        self._failed = False
        self._place = open_place(path)

        with self._disk():
            _check_writable(self._place, mode)
            self._lock = self._place.lock()
        try:
            with self._disk():
                _check_writable(self._place, mode)
                fresh = Header(info, attributes, span=span or {}, classes=classes)
                opened = _open(self._place, fresh, mode)
                self._header, self._pending, self._journal = opened
                self._last_index = _last_index(self._place, self._header, self._pending)
                self._classes = class_names(self.events)
        except BaseException:
            self._lock.release()
            raise

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The store's attributes: the given ones, or those of the resumed store."""
        return self._header.attributes

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """Events of the prompt log so far, JSON objects."""
        return [*self._header.events, *self._pending.events]

    @property
    def committed_frames(self) -> int:
        """Frames that are durable on disk; right after resuming, those that are kept."""
        return self._frames - self._uncommitted

    @property
    def last_committed_index(self) -> int | None:
        """Frame index of the last frame when the store was resumed; None if it was new."""
        return self._last_index

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the result of the next frame."""
        self.append(result)

    def append(self, result: FrameResult) -> None:
        """Append the result of the next frame.

        Raises:
            StoreError: it does not match the store, or writing failed; what was committed is kept.
        """
        self._check(result)
        row = self._frames
        if self._header.classes:
            self._name_classes(result)
        rows = FrameRows(
            _frame_row(result, self._header.source),
            self._object_rows(result, row),
            runs_of(result.covered, row, self._header.source.size_hw),
        )
        record = frame_record(row, result.labels, rows)
        with self._disk():
            self._lock.check()
            self._journal_record(record, rows)
            self._uncommitted += 1
            if len(self._pending.chunks) == FRAMES_PER_SHARD:
                self._finish_shard(complete=False)
                self._journal = self._place.journal(self._frames)
            else:
                self._commit_if_due()

    def commit_due(self) -> None:
        """Commit if it is due, also without a new frame. Raises `StoreError`."""
        if self._uncommitted:
            with self._disk():
                self._commit_if_due()

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Add the new events of the whole prompt log, JSON objects.

        Raises:
            StoreError: the log does not start with the store's events, or writing failed.
        """
        log = json.loads(json.dumps(events))
        kept = self.events
        if log[: len(kept)] != kept:
            raise StoreError(
                f"The mask store {self._place.name} was made with other prompts; give the same "
                "(more may follow them), choose another output or give --overwrite."
            )
        with self._disk():
            for number in range(len(kept), len(log)):
                self._journal_record(event_record(number, log[number]))

    def close(self, *, complete: bool, review: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Finish the store; `complete`: the source was processed to its end.

        review: review items of all frames, JSON objects. After a failed write it only releases the
        store, which stays readable up to there.

        Raises:
            StoreError: writing failed; what was committed is kept.
        """
        try:
            if self._failed:
                return
            with self._disk():
                self._lock.check()
                if self._pending.chunks:
                    self._finish_shard(complete=complete, review=review)
                else:
                    self._header = commit_pending(
                        self._place, self._header, self._pending, complete=complete, review=review
                    )
                    self._place.drop_journal(self._header.frames)
        finally:
            self._journal.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(complete=error is None)

    @property
    def _frames(self) -> int:
        return self._header.frames + len(self._pending.rows)

    def _name_classes(self, result: FrameResult) -> None:
        """Add an event for every class that the store does not know yet."""
        new = {o.label for o in result.objects if o.label} - set(self._classes)
        for name in sorted(new):
            event = {"type": CLASS, "class": len(self._classes), "name": name}
            self._classes.append(name)
            self.add_events([*self.events, event])

    def _object_rows(self, result: FrameResult, row: int) -> Rows:
        dtype = object_table(classes=self._header.classes).dtype
        rows = [(row, o.id, o.box_xyxy, o.score, o.state, o.area) for o in result.objects]
        if not self._header.classes:
            return np.array(rows, dtype)
        numbers = {name: number for number, name in enumerate(self._classes)}
        named = [
            (
                *values,
                numbers.get(o.label, NO_CLASS),
                math.nan if o.detector_score is None else o.detector_score,
            )
            for values, o in zip(rows, result.objects, strict=True)
        ]
        return np.array(named, dtype)

    def _journal_record(self, record: Record, rows: FrameRows | None = None) -> None:
        offset = self._journal.size
        self._journal.append(record.pack())
        self._pending.add(record, offset, rows)

    def _finish_shard(
        self, *, complete: bool, review: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        key = shard_key(self._header.frames // FRAMES_PER_SHARD)
        self._journal.finish(key, build_index(self._pending.chunks))
        self._header = commit_pending(
            self._place, self._header, self._pending, complete=complete, review=review
        )
        self._place.drop_journal(min(self._pending.chunks))
        self._pending = Pending()
        self._mark_committed()

    def _commit_if_due(self) -> None:
        overdue = self._monotonic() - self._committed_at >= self._seconds_per_commit
        if overdue or self._uncommitted >= self._frames_per_commit:
            self._journal.sync()
            self._mark_committed()

    def _mark_committed(self) -> None:
        self._uncommitted = 0
        self._committed_at = self._monotonic()

    def _check(self, result: FrameResult) -> None:
        if self._failed:
            raise StoreError(
                f"Writing the mask store {self._place.name} failed before; "
                "continue it with --resume."
            )
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

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            raise StoreError(
                f"The mask store {self._place.name} cannot be written: {error.strerror or error}."
            ) from error
        except ValueError as error:
            self._failed = True
            raise StoreCorruptError(
                f"The mask store {self._place.name} is damaged: {error}; "
                "maskstream fsck --repair may restore it."
            ) from error
        except StoreError:
            self._failed = True
            raise


def _frame_row(result: FrameResult, source: SourceInfo) -> Rows:
    pts = NO_PTS if result.pts is None else result.pts
    captured_s = math.nan if result.captured_s is None else result.captured_s
    captured = (captured_s,) if source.live else ()
    frame = (result.index, pts, result.keyframe, *captured)
    return np.array([frame], frame_table(live=source.live).dtype)


def _header_to_resume(place: Place, info: SourceInfo) -> Header | None:
    """The header of the store to resume; None if there is none, or it was never written."""
    if not is_store(place) or is_emptied(place):
        return None
    header = read_header(place)
    for what in _SAME_SOURCE:
        stored, given = getattr(header.source, what), getattr(info, what)
        if stored != given:
            raise StoreError(
                f"The mask store {place.name} was made from another source ({what} {stored}, now "
                f"{given}), so it cannot be resumed; choose another output or give --overwrite."
            )
    return header


def _last_index(place: Place, header: Header, pending: Pending) -> int | None:
    if pending.rows:
        return int(pending.rows[-1].frame["index"][0])
    if not header.frames:
        return None
    return int(np.asarray(open_column(place, header.tables[0], "index")[header.frames - 1]))


def _open(place: Place, fresh: Header, mode: StoreMode) -> tuple[Header, Pending, Journal]:
    """Open the store to resume, or create a new one."""
    stored = _header_to_resume(place, fresh.source) if mode == "resume" else None
    if stored is not None:
        return recover(place, replace(stored, source=fresh.source, span=fresh.span))
    _create(place, fresh)
    return fresh, Pending(), place.journal(0)


def _create(place: Place, header: Header) -> None:
    """Create an empty store, replacing what was there."""
    mark_emptying(place)
    place.clear()
    files = metadata_files(header.source.size_hw, live=header.source.live, classes=header.classes)
    for key, data in files.items():
        place.replace(key, data)
    write_header(place, header)


def check_writable(path: Path | str, mode: StoreMode) -> None:
    """Check early whether a writer could be opened, before other long work.

    Raises `StoreExistsError` where `mode` may not write.
    """
    _check_writable(open_place(path), mode)


def _check_writable(place: Place, mode: StoreMode) -> None:
    """Raise `StoreExistsError` where `mode` may not write."""
    if place.vacant():
        return
    if not is_store(place):
        raise StoreExistsError(
            f"{place.name} exists and is not a mask store; choose another output."
        )
    if mode == "create" and not is_emptied(place):
        raise StoreExistsError(
            f"There is a mask store at {place.name} already; "
            "give --overwrite to replace it or --resume to continue it."
        )
