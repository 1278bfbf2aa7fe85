"""Mask stores of live runs: with the gaps of the source, whole or only the last hours."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import ConfigError, StoreExistsError
from maskstream.pipeline.live.gaps import SourceEvents
from maskstream.pipeline.live.status import uses_last_id
from maskstream.pipeline.results.review import Reviewer
from maskstream.pipeline.runs.outputs import attributes_of
from maskstream.pipeline.store import MaskStoreWriter
from maskstream.pipeline.types import Frame, FrameResult, SourceInfo

_PARTS = 10  # stores that the time to retain is split into; one more may be kept
_SUFFIX = ".zarr"

OpenWriter = Callable[[Path | str], MaskStoreWriter]


def writer_opener(pipeline: Pipeline, info: SourceInfo, *, overwrite: bool = False) -> OpenWriter:
    """Return a function that creates mask stores for a pipeline's results on a source."""
    config, attributes = pipeline.config.store, attributes_of(pipeline, info.name)

    def open_writer(path: Path | str) -> MaskStoreWriter:
        return MaskStoreWriter(
            path,
            info=info,
            attributes=attributes,
            classes=True,  # a command may bring some
            mode="overwrite" if overwrite else "create",
            frames_per_commit=config.commit_frames,
            seconds_per_commit=config.commit_s,
        )

    return open_writer


class LiveStore:
    """A sink that writes one mask store; the source's gaps are among its events, `SourceEvents`."""

    def __init__(self, writer: MaskStoreWriter) -> None:
        self._writer = writer
        self._reviewer = Reviewer()
        self._source_events = SourceEvents()
        self._full = False

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the result. Raises `StoreError`."""
        if frame.arrival is not None:
            self._add(self._source_events.before(frame, frame.arrival))
        if not self._full and uses_last_id(result):
            self._full = True
            self._add([{"type": "full", "frame": frame.index}])
        self._writer.append(result)
        self._reviewer.add(result)

    def idle(self) -> None:
        """Commit what is due. Raises `StoreError`."""
        self._writer.commit_due()

    def close(self, *, complete: bool) -> None:
        """Close the store. Raises `StoreError`."""
        self._add(self._source_events.at_end())
        items = [item.to_json() for item in self._reviewer.items()]
        self._writer.close(complete=complete, review=items)

    def _add(self, events: Sequence[Mapping[str, Any]]) -> None:
        if events:
            self._writer.add_events([*self._writer.events, *events])


@dataclass(slots=True)
class RollingStore:
    """A sink that keeps about the last `retain_s` seconds in a folder of mask stores.

    The stores hold a tenth of that each and are named 000001.zarr, 000002.zarr, …; each can be
    read, checked and exported on its own, and the oldest are deleted. Object ids continue from one
    store to the next.
    """

    folder: Path
    retain_s: float
    open_writer: OpenWriter
    _store: LiveStore | None = None
    _start_s: float = 0.0
    _now_s: float = 0.0
    _count: int = 0
    _parts: deque[tuple[Path, float]] = field(default_factory=deque)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the result, in a new store when the current one is full. Raises `StoreError`."""
        self._now_s = frame.arrival.monotonic_s if frame.arrival else frame.pts_s or 0.0
        full = self._now_s - self._start_s >= self.retain_s / _PARTS
        if self._store is None or full:
            self._open_next()
            assert self._store is not None  # noqa: S101 - `_open_next` has created it
        self._store.write(frame, result)

    def idle(self) -> None:
        """Commit what is due. Raises `StoreError`."""
        if self._store is not None:
            self._store.idle()

    def close(self, *, complete: bool) -> None:
        """Close the newest store. Raises `StoreError`."""
        if self._store is not None:
            self._store.close(complete=complete)

    def _open_next(self) -> None:
        if self._store is not None:
            self._store.close(complete=True)
            self._parts.append((self._path(self._count), self._now_s))
        while self._parts and self._now_s - self._parts[0][1] > self.retain_s:
            shutil.rmtree(self._parts.popleft()[0])
        self._count += 1
        self._start_s = self._now_s
        self._store = LiveStore(self.open_writer(self._path(self._count)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}{_SUFFIX}"


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Create the empty folder of a `RollingStore`.

    Raises:
        StoreExistsError: it holds live stores and `overwrite` is false, or it holds other files.
    """
    if folder.exists():
        inside = list(folder.iterdir()) if folder.is_dir() else [folder]
        others = [path for path in inside if not (path.suffix == _SUFFIX and path.stem.isdigit())]
        if others:
            raise StoreExistsError(f"{folder} exists and holds no live stores; choose another one.")
        if inside and not overwrite:
            raise StoreExistsError(
                f"{folder} holds live stores already; give --overwrite to replace them."
            )
        for path in inside:
            shutil.rmtree(path)
    folder.mkdir(parents=True, exist_ok=True)


def parse_duration(text: str) -> float:
    """Parse a duration such as `90`, `90s`, `10m` or `2h` to seconds. Raises `ConfigError`."""
    scale = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    number = text[:-1] if scale else text
    try:
        seconds = float(number) * (scale or 1)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ConfigError(f"'{text}' is not a duration; write 90, 90s, 10m or 2h")
    return seconds
