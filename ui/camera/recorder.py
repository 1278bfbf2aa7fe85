"""Recordings of a live run, started and finished while it runs."""

from __future__ import annotations

import threading
from pathlib import Path

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.live.live_store import LiveStore, OpenWriter
from maskstream.pipeline.types import Frame, FrameResult


class Recorder:
    """A sink that records results to live stores in a folder, from `begin` to `finish`.

    newest: the last store. count: number of results in it.
    """

    def __init__(self, folder: Path, open_writer: OpenWriter) -> None:
        self.newest: Path | None = None
        self.count = 0
        self._folder = folder
        self._open_writer = open_writer
        self._lock = threading.Lock()
        self._store: LiveStore | None = None
        self._closed = False

    @property
    def recording(self) -> bool:
        """Whether results are being written."""
        return self._store is not None

    def begin(self) -> None:
        """Start recording to a new store. Raises `StoreError`."""
        with self._lock:
            if self._closed:
                raise StoreError("The camera has ended; there is nothing to record.")
            if self._store is not None:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            number = 1 + sum(1 for _ in self._folder.glob("live-*.zarr"))
            path = self._folder / f"live-{number}.zarr"
            self._store = LiveStore(self._open_writer(path))
            self.newest, self.count = path, 0

    def finish(self) -> None:
        """Close the current store, if there is one. Raises `StoreError`."""
        with self._lock:
            store, self._store = self._store, None
            if store is not None:
                store.close(complete=True)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the result while recording. Raises `StoreError`."""
        with self._lock:
            if self._store is not None:
                self._store.write(frame, result)
                self.count += 1

    def idle(self) -> None:
        """Commit what is due. Raises `StoreError`."""
        with self._lock:
            if self._store is not None:
                self._store.idle()

    def close(self, *, complete: bool) -> None:
        """Close the current store as complete, however the run ended. Raises `StoreError`."""
        self._closed = True
        self.finish()
