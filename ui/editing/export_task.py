"""Exports of a session, each in its own thread and as one file to download."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.errors import MaskstreamError, PromptError
from maskstream.pipeline.exports.edges import PLAIN, Edges
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.registry import FORMATS, find_format
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.store import MaskStore, ObjectSummary
from maskstream.pipeline.types import FrameResult
from maskstream.ui.editing.final_masks import FinalMasks
from maskstream.ui.editing.slots import JobSlots

logger = logging.getLogger(__name__)

FOLDER = "exports"


def formats_json() -> list[JsonObject]:
    """The export formats as JSON values."""
    return [
        {
            "name": name,
            "summary": known.summary,
            "suffix": known.suffix or ".zip",
            "edges": known.takes_edges,
            "background": known.takes_background,
        }
        for name, known in FORMATS.items()
    ]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """An export to run. objects: ids; first, last: frame indices, inclusive.

    masks: the session's at the moment of the request.
    """

    format: str
    title: str
    objects: Sequence[int]
    first: int
    last: int
    masks: FinalMasks
    edges: Edges = PLAIN
    background: str | None = None


class _FinalStore(MaskStore):
    """A mask store with the masks and names of a session."""

    def __init__(self, path: Path, final: FinalMasks) -> None:
        super().__init__(path)
        self._final = final

    @property
    def names(self) -> dict[int, str]:
        known = self._final.state.objects.values()
        return super().names | {each.id: each.name for each in known}

    def frame(self, row: int) -> FrameResult:
        tracked = super().frame(row)
        final = self._final.at(tracked.index, tracked)
        assert final is not None  # noqa: S101 - a tracked frame has masks
        return final

    def objects(self) -> list[ObjectSummary]:
        """As the store's, and objects that were prompted, but not tracked yet."""
        found = {each.id: each for each in super().objects()}
        for anchors in self._final.newer.values():
            for anchor in anchors:
                name = self.names.get(anchor.object, "")
                prompted = ObjectSummary(anchor.object, anchor.frame, anchor.frame, 1, 1.0, name)
                found.setdefault(anchor.object, prompted)
        return [found[object_id] for object_id in sorted(found)]


def zip_folder(folder: Path, archive: Path) -> None:
    """Write the files of a folder to an uncompressed ZIP archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(folder))


class _Canceled(Exception):  # noqa: N818 - no error: somebody pressed Cancel
    """Raised to end an export."""


class ExportTask:
    """One export, started as soon as a slot is free.

    status: waiting, running, done, canceled or failed. Raises `PromptError` if there is nothing to
    export, `ConfigError` for an unknown format, `ServerFullError` if no place in line is left.
    """

    def __init__(self, store: Path, folder: Path, request: ExportRequest, slots: JobSlots) -> None:
        if not request.objects:
            raise PromptError("Choose at least one object to export.")
        self.status = "waiting"
        self.message = ""
        self.done = 0
        self.total = 0
        self.file: Path | None = None
        self._store = store
        self._request = request
        self._cancel = threading.Event()
        self._slots = slots
        name = re.sub(r"[^\w.-]+", "_", request.title) or "clip"
        stem = f"{name}_{request.format}"
        suffix = find_format(request.format).suffix
        self._place = folder / FOLDER / f"{stem}{suffix}"
        self._ticket = slots.enter()
        self._thread = threading.Thread(target=self._run, name="maskstream-export", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether the export has not ended."""
        return self.status in ("waiting", "running")

    def cancel(self) -> None:
        """Cancel the export and delete its files."""
        self._cancel.set()
        self._slots.notice()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the export has ended."""
        self._thread.join(timeout_s)

    def to_json(self) -> JsonObject:
        """Progress as JSON values; size in bytes."""
        file = self.file
        return {
            "status": self.status,
            "message": self.message,
            "format": self._request.format,
            "masks": self._request.masks.fingerprint,
            "choice": self._choice_json(),
            "done": self.done,
            "total": self.total,
            "file": None if file is None else file.name,
            "size": None if file is None else file.stat().st_size,
        }

    def _choice_json(self) -> JsonObject:
        wanted = self._request
        return {
            "format": wanted.format,
            "objects": [*sorted(wanted.objects)],
            "soft": wanted.edges.soft,
            "feather": wanted.edges.feather_px,
            "grow": wanted.edges.grow_px,
            "background": wanted.background,
        }

    def _run(self) -> None:
        try:
            with self._slots.slot(self._ticket, self._cancel.is_set) as granted:
                if not granted:
                    raise _Canceled
                self.status = "running"
                self._export()
            self.status = "done"
        except _Canceled:
            self._remove()
            self.status = "canceled"
        except MaskstreamError as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("an export failed")
            self._fail(f"The export failed: {error}.")

    def _export(self) -> None:
        wanted, place = self._request, self._place
        self._remove()
        store = _FinalStore(self._store, wanted.masks)
        takes_edges = find_format(wanted.format).takes_edges
        choice = ExportChoice(
            format=wanted.format,
            objects=",".join(str(i) for i in wanted.objects),
            start=str(max(wanted.first, int(store.indices[0]))),
            end=str(wanted.last + 1),
            overwrite=True,
            edges=wanted.edges,
            object_edges=wanted.masks.object_edges if takes_edges else {},
            background=wanted.background,
        )
        export_store(store, place, choice, on_start=self._begin, on_frame=self._on_frame)
        if place.is_dir():
            archive = place.with_name(f"{place.name}.zip")
            zip_folder(place, archive)
            shutil.rmtree(place)
            place = archive
        self.file = place

    def _begin(self, frames: int) -> None:
        self.total = frames

    def _on_frame(self, result: FrameResult) -> None:
        self.done += 1
        if self._cancel.is_set():
            raise _Canceled

    def _remove(self) -> None:
        if self._place.is_dir():
            shutil.rmtree(self._place, ignore_errors=True)
        self._place.unlink(missing_ok=True)

    def _fail(self, message: str) -> None:
        self._remove()
        self.message = message
        self.status = "failed"
