"""Mask stores on remote storage through fsspec: objects are written whole, never appended to.

The journal is a sequence of segment objects, one per commit; the finished shard is written as one
object from the same bytes, which are kept in memory until then (one compressed shard).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from zarr.abc.store import Store
from zarr.storage import FsspecStore

from maskstream.pipeline.addresses import masked
from maskstream.pipeline.errors import StoreError, StoreLockedError
from maskstream.pipeline.store.layout import LABELS, LOCK_FILE, ROOT_FILE
from maskstream.pipeline.store.place import (
    Journal,
    Lock,
    describe_holder,
    has_ended,
    holder_of_lock,
)

LOCK_STALE_S = 60.0
_LOCK_EVERY_S = 10.0


class RemotePlace:
    """A mask store's objects under a URL of fsspec. See `Place`.

    `clock` returns Unix time in seconds, for the age of locks.

    Raises:
        StoreError: a package that the URL needs is not installed.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.name = masked(url)
        self._url = url
        self._clock = clock
        try:
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"{url} cannot be opened: {error}; pip install 'maskstream[remote]' brings fsspec "
                "and S3, other services need their own fsspec package."
            ) from error
        self._root = root.rstrip("/")

    def arrays(self) -> Store:
        """See `Place`."""
        return FsspecStore.from_url(self._url, read_only=True)

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """See `Place`."""
        with _as_os_errors():
            data: bytes = self._files.cat_file(self._path(key), start=start, end=stop)
            return data

    def modified(self, key: str) -> float:
        """See `Place`."""
        with _as_os_errors():
            self._files.invalidate_cache()
            return float(self._files.modified(self._path(key)).timestamp())

    def replace(self, key: str, data: bytes) -> None:
        """See `Place`."""
        with _as_os_errors():
            self._files.pipe_file(self._path(key), data)

    def delete(self, key: str) -> None:
        """See `Place`."""
        with _as_os_errors(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def keys(self, prefix: str) -> list[str]:
        """See `Place`."""
        start = len(self._root) + 1
        return [path[start:] for path in self._find() if path.startswith(self._path(prefix))]

    def vacant(self) -> bool:
        """See `Place`."""
        return all(path == self._path(LOCK_FILE) for path in self._find())

    def clear(self, *, leftovers_only: bool = False) -> None:
        """See `Place`; objects are never incomplete."""
        if leftovers_only:
            return
        keep = {self._path(ROOT_FILE), self._path(LOCK_FILE)}
        with _as_os_errors():
            for path in self._find():
                if path not in keep:
                    self._files.rm_file(path)

    def lock(self) -> Lock:
        """See `Place`."""
        return _Lease(self, self._clock)

    def journal(self, first_row: int, records: bytes = b"") -> Journal:
        """See `Place`."""
        return _Segments(self, first_row, records)

    def journal_part(self, first_row: int, part: int) -> str | None:
        """See `Place`."""
        return f"{LABELS}/journal.{first_row}.{part}"

    def drop_journal(self, first_row: int) -> None:
        """See `Place`."""
        for key in self.keys(f"{LABELS}/journal.{first_row}."):
            self.delete(key)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _find(self) -> list[str]:
        with _as_os_errors():
            self._files.invalidate_cache()
            with suppress(FileNotFoundError):
                return list(self._files.find(self._root))
        return []


class _Lease:
    """A lock object that names the writer and is renewed every few seconds.

    It is stale if it was not renewed for `LOCK_STALE_S`, or if its process was on this machine and
    has ended. Object stores have no conditional write here, so if two writers start at the same
    instant one of them fails at its next check.
    """

    def __init__(self, place: RemotePlace, clock: Callable[[], float]) -> None:
        self._place = place
        self._clock = clock
        self._token = uuid4().hex
        self._released = False
        holder = self._read()
        fresh = self._clock() - float(holder.get("time", 0)) < LOCK_STALE_S
        if fresh and not has_ended(holder.get("host"), holder.get("pid", 0)):
            raise StoreLockedError(describe_holder(place.name, json.dumps(holder).encode()))
        self._renew()

    def check(self) -> None:
        """See `Lock`."""
        if self._clock() - self._renewed < _LOCK_EVERY_S:
            return
        holder = self._read()
        if not holder:
            raise StoreError(
                f"The mask store {self._place.name} was removed while it was being written; "
                "what it held is lost, so run again."
            )
        if holder.get("token") != self._token:
            raise StoreLockedError(describe_holder(self._place.name, json.dumps(holder).encode()))
        self._renew()

    def release(self) -> None:
        """See `Lock`."""
        if not self._released and self._read().get("token") == self._token:
            self._place.delete(LOCK_FILE)
        self._released = True

    def _renew(self) -> None:
        self._renewed = self._clock()
        holder = json.loads(holder_of_lock()) | {"token": self._token, "time": self._renewed}
        self._place.replace(LOCK_FILE, json.dumps(holder).encode())

    def _read(self) -> dict[str, Any]:
        with suppress(FileNotFoundError, ValueError, TypeError):
            return dict(json.loads(self._place.read(LOCK_FILE)))
        return {}


class _Segments:
    """A journal of segment objects. See `Journal`."""

    def __init__(self, place: RemotePlace, first_row: int, records: bytes) -> None:
        self._place = place
        self._first_row = first_row
        self._data = bytearray(records)
        self._written = 0
        self._part = 0
        if records:  # rewrite the first segment before deleting the others: it has their records
            self.sync()
            part = self._part
            while self._exists(part):
                place.delete(self._key(part))
                part += 1

    @property
    def size(self) -> int:
        """See `Journal`."""
        return len(self._data)

    def append(self, record: bytes) -> None:
        """See `Journal`."""
        self._data += record

    def sync(self) -> None:
        """See `Journal`."""
        if self._written < len(self._data):
            self._place.replace(self._key(self._part), bytes(self._data[self._written :]))
            self._written = len(self._data)
            self._part += 1

    def finish(self, key: str, index: bytes) -> None:
        """See `Journal`; `drop_journal` deletes the segments later."""
        self._place.replace(key, bytes(self._data) + index)

    def close(self) -> None:
        """See `Journal`."""

    def _key(self, part: int) -> str:
        return f"{LABELS}/journal.{self._first_row}.{part}"

    def _exists(self, part: int) -> bool:
        try:
            self._place.read(self._key(part), 0, 1)
        except FileNotFoundError:
            return False
        return True


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Convert the exceptions of storage services to `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error)) from error
