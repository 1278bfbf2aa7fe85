"""Storage of a mask store: the interface between the format and a folder or a remote URL."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from zarr.abc.store import Store
from zarr.storage import LocalStore

from maskstream.pipeline.errors import StoreError, StoreLockedError
from maskstream.pipeline.store.layout import LABELS, LOCK_FILE, ROOT_FILE

_PARTIAL = ".partial"  # suffix of incomplete files, also Zarr's


class Lock(Protocol):
    """The lock of a store's only writer."""

    def check(self) -> None:
        """Raise `StoreError` if the lock was lost: the store was removed or taken over."""
        ...

    def release(self) -> None:
        """Release the lock."""
        ...


class Journal(Protocol):
    """The growing shard: records are appended, then an index completes it."""

    @property
    def size(self) -> int:
        """Bytes so far, including those it was opened with."""
        ...

    def append(self, record: bytes) -> None:
        """Append one record. Raises `OSError`; the journal is then unchanged."""
        ...

    def sync(self) -> None:
        """Make everything appended durable. Raises `OSError`."""
        ...

    def finish(self, key: str, index: bytes) -> None:
        """Append the index and rename the journal to `key`. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Close it; what was appended is kept."""
        ...


class Place(Protocol):
    """A store's files by their keys. Every method may raise `OSError`."""

    name: str

    def arrays(self) -> Store:
        """The files as a read-only Zarr store."""
        ...

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Bytes of a file; a negative start counts from its end."""
        ...

    def modified(self, key: str) -> float:
        """When a file was last written, seconds since 1970 by the clock of the disk or service."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Write a whole file atomically and durably."""
        ...

    def delete(self, key: str) -> None:
        """Delete a file if it exists."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Keys that start with `prefix`."""
        ...

    def vacant(self) -> bool:
        """Whether a new store can be created: nothing is there but leftovers of a dead writer."""
        ...

    def clear(self, *, leftovers_only: bool = False) -> None:
        """Delete everything but the root's metadata and the lock; or only incomplete files.

        Only keys of this store are deleted.
        """
        ...

    def lock(self) -> Lock:
        """Lock the store for writing. Raises `StoreLockedError`."""
        ...

    def journal(self, first_row: int, records: bytes = b"") -> Journal:
        """Open the journal of the shard that starts with `first_row`, containing `records`."""
        ...

    def journal_part(self, first_row: int, part: int) -> str | None:
        """Key of a part of that journal; None if it cannot have so many parts."""
        ...

    def drop_journal(self, first_row: int) -> None:
        """Delete that journal if it exists."""
        ...


class LocalPlace:
    """A mask store's files in a local folder. See `Place`."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def arrays(self) -> Store:
        """See `Place`."""
        return LocalStore(self._root, read_only=True)

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """See `Place`."""
        with (self._root / key).open("rb") as file:
            if start is not None:
                size = os.fstat(file.fileno()).st_size
                file.seek(start if start >= 0 else max(0, size + start))
            return file.read(-1 if stop is None else stop - file.tell())

    def modified(self, key: str) -> float:
        """See `Place`."""
        return (self._root / key).stat().st_mtime

    def replace(self, key: str, data: bytes) -> None:
        """See `Place`."""
        path = self._root / key
        partial = path.with_name(f"{path.name}.{uuid4().hex}{_PARTIAL}")
        _make_folder(path.parent)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def delete(self, key: str) -> None:
        """See `Place`."""
        (self._root / key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """See `Place`."""
        return [str(path.relative_to(self._root)) for path in self._root.glob(f"{prefix}*")]

    def vacant(self) -> bool:
        """See `Place`."""
        if not self._root.exists():
            return True
        if not self._root.is_dir():
            return False
        files = (path for path in self._root.rglob("*") if not path.is_dir())
        return all(p == self._root / LOCK_FILE or p.name.endswith(_PARTIAL) for p in files)

    def clear(self, *, leftovers_only: bool = False) -> None:
        """See `Place`."""
        if leftovers_only:
            for partial in self._root.rglob("*" + _PARTIAL):
                partial.unlink(missing_ok=True)
            return
        keep = {self._root / ROOT_FILE, self._root / LABELS, self._root / LOCK_FILE}
        for path in [*self._root.iterdir(), *(self._root / LABELS).iterdir()]:
            if path in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def lock(self) -> Lock:
        """See `Place`."""
        path = self._root / LOCK_FILE
        _make_folder(path.parent)
        return _LocalLock(path, self.name)

    def journal(self, first_row: int, records: bytes = b"") -> Journal:
        """See `Place`."""
        path = self._root / _journal_key(first_row)
        if records or path.exists():
            self.replace(_journal_key(first_row), records)
        return _LocalJournal(path)

    def journal_part(self, first_row: int, part: int) -> str | None:
        """See `Place`."""
        return _journal_key(first_row) if part == 0 else None

    def drop_journal(self, first_row: int) -> None:
        """See `Place`."""
        self.delete(_journal_key(first_row))


class _LocalLock:
    """Advisory lock (`flock`), which the operating system releases when the process ends."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 200, 0)
            os.close(self._file)
            raise StoreLockedError(describe_holder(name, holder)) from error
        os.truncate(self._file, 0)
        os.pwrite(self._file, holder_of_lock(), 0)

    def check(self) -> None:
        """See `Lock`."""
        own = os.fstat(self._file)
        with suppress(FileNotFoundError, NotADirectoryError):
            there = os.stat(self._path)
            if (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev):
                return
        raise StoreError(
            f"The mask store {self._name} was removed while it was being written; "
            "what it held is lost, so run again."
        )

    def release(self) -> None:
        """See `Lock`."""
        if self._file >= 0:
            with suppress(OSError):
                os.truncate(self._file, 0)
            os.close(self._file)
            self._file = -1


class _LocalJournal:
    """A file that is appended to and renamed when the shard is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size = os.fstat(self._file).st_size
        _sync_folder(path.parent)

    def append(self, record: bytes) -> None:
        """See `Journal`."""
        self._write(record)
        self.size += len(record)

    def sync(self) -> None:
        """See `Journal`."""
        os.fsync(self._file)

    def finish(self, key: str, index: bytes) -> None:
        """See `Journal`."""
        self._write(index)
        os.fsync(self._file)
        self._path.replace(self._path.with_name(Path(key).name))
        _sync_folder(self._path.parent)
        self.close()

    def close(self) -> None:
        """See `Journal`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise


def holder_of_lock() -> bytes:
    """JSON that names this process as the holder of a lock."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()


def has_ended(host: str | None, pid: int | str) -> bool:
    """Whether a process was on this machine and has ended."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def describe_holder(name: str, holder: bytes) -> str:
    """Message of a `StoreLockedError`."""
    holder_text = "another process"
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(holder)
        holder_text = f"process {found['pid']} on {found['host']}"
    return (
        f"The mask store {name} is being written by {holder_text}; wait for it, or choose another "
        "output."
    )


def _make_folder(path: Path) -> None:
    """Create a folder and its parents durably."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Sync a folder's entries; without it a power cut may undo a rename."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _journal_key(first_row: int) -> str:
    return f"{LABELS}/journal.{first_row}"
