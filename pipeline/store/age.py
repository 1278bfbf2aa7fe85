"""When a store was last written, by the clock of its disk or service."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.store.layout import ROOT_FILE
from maskstream.pipeline.store.open_place import open_place


def written_at(path: Path | str) -> float:
    """Seconds since 1970 when its header was last written; 0 if that is not known."""
    with suppress(OSError):
        return open_place(path).modified(ROOT_FILE)
    return 0.0


def touch(path: Path | str) -> None:
    """Let a complete store count as written now. One that cannot be written, or is, stays."""
    place = open_place(path)
    with suppress(OSError, StoreError):
        lock = place.lock()
        try:
            place.replace(ROOT_FILE, place.read(ROOT_FILE))
        finally:
            lock.release()
