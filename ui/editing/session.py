"""A session: the log of a person's actions on one video, and the state derived from it.

Entries are only appended; undo and redo move a position in the log, and a new entry after an undo
drops the undone ones. `state` folds the entries before the position.

A prompt keeps the mask that answered it. These masks are the anchors of tracking: a segment between
two anchors of an object is tracked from both (before the first one backward, after the last one
forward), and changing an anchor makes only its neighboring segments stale
(`maskstream.ui.editing.track_plan`). A tracking job tracks stale segments into a new store, into
which everything else is copied (`maskstream.pipeline.runs.retrack`), and ends with an entry that
names the store: undoing it restores the previous store.

The file `session.json` is also a prompts JSON: `run --prompts session.json` repeats its jobs and
writes the same store.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer

from maskstream.pipeline.errors import PromptError, StoreError
from maskstream.pipeline.prompts import EventRef, MaskRef, RemoveEvent, TrackJob
from maskstream.pipeline.rendering.draw import object_color
from maskstream.ui.editing.entries import (
    COMMON_EDGES,
    MAX_OBJECTS,
    ChangedEntry,
    ClearedEntry,
    DeletedEntry,
    DoneSegment,
    Entry,
    Handover,
    ModelEntry,
    ObjectEdges,
    OrderEntry,
    PromptedEntry,
    RangeEntry,
    TrackedEntry,
)
from maskstream.ui.editing.mask_files import MaskFiles

FILE = "session.json"
MASKS = "masks"


@dataclass(frozen=True, slots=True)
class SessionObject:
    """An object of a session. anchors: its prompts by frame index, in frame order.

    edges: in exports.
    """

    id: int
    name: str
    color: str
    visible: bool = True
    locked: bool = False
    edges: ObjectEdges = COMMON_EDGES
    anchors: Mapping[int, PromptedEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionState:
    """The state derived from a log.

    objects: those not deleted, by id. order: as they lie on each other, the first on top; empty:
    automatically. model: name of the chosen one, "": the server's own. first, last: the range; last
    None: to the end. store: name of the mask store, None before the first tracking job. jobs: the
    jobs that wrote it. done: its tracked segments.
    """

    objects: Mapping[int, SessionObject] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    model: str = ""
    first: int = 0
    last: int | None = None
    store: str | None = None
    jobs: tuple[TrackJob[EventRef], ...] = ()
    done: tuple[DoneSegment, ...] = ()
    highest: int = 0  # the largest object id used so far


def fold(entries: Iterable[Entry]) -> SessionState:
    """Compute the state after these entries."""
    state = SessionState()
    for entry in entries:
        state = _after(state, entry)
    return state


def _after(state: SessionState, entry: Entry) -> SessionState:
    match entry:
        case PromptedEntry():
            known = state.objects.get(entry.object) or new_object(entry.object, entry.label)
            anchors = dict(sorted({**known.anchors, entry.frame: entry}.items()))
            state = replace(state, highest=max(state.highest, entry.object))
            return _with(state, replace(known, anchors=anchors))
        case ClearedEntry():
            known = state.objects[entry.object]
            anchors = {t: a for t, a in known.anchors.items() if t != entry.frame}
            return _with(state, replace(known, anchors=anchors))
        case ChangedEntry():
            changes = entry.model_dump(exclude={"type", "object", "edges"}, exclude_none=True)
            if entry.edges is not None:
                changes["edges"] = entry.edges
            return _with(state, replace(state.objects[entry.object], **changes))
        case DeletedEntry():
            left = {i: o for i, o in state.objects.items() if i != entry.object}
            return replace(state, objects=left)
        case ModelEntry():
            return replace(state, model=entry.model)
        case OrderEntry():
            return replace(state, order=entry.objects)
        case RangeEntry():
            return replace(state, first=entry.first, last=entry.last)
        case TrackedEntry():
            jobs = (*(state.jobs if entry.onto == state.store else ()), entry.job)
            return replace(state, store=entry.store, jobs=jobs, done=entry.done)


def _with(state: SessionState, changed: SessionObject) -> SessionState:
    return replace(state, objects={**state.objects, changed.id: changed})


def new_object(object_id: int, label: str = "") -> SessionObject:
    """Create an object with its class (or "Object") and id as its name, and a default color."""
    red, green, blue = object_color(object_id)
    name = f"{label or 'Object'} {object_id}"
    return SessionObject(object_id, name, f"#{red:02x}{green:02x}{blue:02x}")


class _Page(BaseModel):
    """The page's own part of `session.json`."""

    model_config = ConfigDict(extra="forbid")

    source: str
    title: str
    log: tuple[Entry, ...] = ()
    position: int = Field(0, ge=0)

    @field_serializer("log")
    def _without_defaults(self, log: tuple[Entry, ...]) -> list[dict[str, JsonValue]]:
        """Serialize the log without default values, to keep the file small."""
        return [
            {"type": entry.type}
            | entry.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for entry in log
        ]


class _File(BaseModel):
    """The whole `session.json`: a prompts JSON with an additional key `page`."""

    version: Literal[1] = 1
    events: tuple[EventRef, ...]
    tracking: tuple[TrackJob[EventRef], ...]
    page: _Page


class Session:
    """A session log in a folder, written to disk with every entry.

    Raises:
        StoreError: the folder cannot be written, or the file in it is damaged.
    """

    def __init__(self, folder: Path, source: Path, title: str) -> None:
        """Create a session on the video `source`."""
        self.folder = folder
        self.source = source
        self.title = title
        self.masks = MaskFiles(folder / MASKS)
        self._log: list[Entry] = []
        self._position = 0
        self._state = SessionState()

    @classmethod
    def reopen(cls, folder: Path) -> Session:
        """Reopen the session in a folder, at its saved position."""
        file = folder / FILE
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            page = _Page.model_validate(values["page"])
        except OSError as error:
            raise StoreError(f"There is no session in {folder}: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"The session file {file} is damaged: {reason}.") from error
        session = cls(folder, Path(page.source), page.title)
        session._log = list(page.log)
        session._position = min(page.position, len(page.log))
        try:
            session._state = fold(session._log[: session._position])
        except KeyError as error:
            raise StoreError(
                f"The session file {file} refers to an unknown object {error}."
            ) from error
        return session

    @property
    def state(self) -> SessionState:
        """The state at the current position of the log."""
        return self._state

    @property
    def tracked_state(self) -> SessionState:
        """The state without tracking whose store has been deleted."""
        if self.store is not None:
            return self._state
        return replace(self._state, store=None, jobs=(), done=())

    @property
    def log(self) -> Sequence[Entry]:
        """All entries, including undone ones."""
        return self._log

    @property
    def position(self) -> int:
        """Number of entries that are not undone."""
        return self._position

    @property
    def store(self) -> Path | None:
        """Path of the mask store, if it exists."""
        name = self._state.store
        return self.folder / name if name is not None and (self.folder / name).is_dir() else None

    def new_store(self) -> str:
        """A name for the next job's store."""
        named = [e.store for e in self._log if isinstance(e, TrackedEntry)]
        there = [place.name for place in self.folder.glob("masks-*.zarr")]
        taken = [int(n[6:-5]) for n in (*named, *there) if n[6:-5].isdecimal()]
        return f"masks-{max(taken, default=0) + 1}.zarr"

    def drop_old_stores(self, keep: int = 4) -> None:
        """Delete the stores that no entry refers to, and all but the last `keep` of the others."""
        named = [e.store for e in self._log if isinstance(e, TrackedEntry)][-keep:]
        for place in self.folder.glob("masks-*.zarr"):
            if place.name not in named and place.name != self._state.store:
                shutil.rmtree(place, ignore_errors=True)

    def next_object(self) -> int:
        """The id for a new object. Raises `PromptError` if there are too many."""
        number = self._state.highest + 1
        if number > MAX_OBJECTS:
            raise PromptError(f"The page takes up to {MAX_OBJECTS} objects; begin a new session.")
        return number

    def add(self, entry: Entry) -> None:
        """Append an entry. Raises `PromptError` if it refers to an unknown object."""
        if isinstance(entry, ClearedEntry | ChangedEntry | DeletedEntry):
            self.object(entry.object)
        if isinstance(entry, PromptedEntry) and entry.object in self._state.objects:
            self._check_unlocked(entry.object)
        if isinstance(entry, ClearedEntry | DeletedEntry):
            self._check_unlocked(entry.object)
        del self._log[self._position :]
        self._log.append(entry)
        self._position += 1
        self._state = _after(self._state, entry)
        self.save()

    def object(self, object_id: int) -> SessionObject:
        """The object with this id. Raises `PromptError`."""
        if object_id not in self._state.objects:
            raise PromptError(f"There is no object {object_id} (any more).")
        return self._state.objects[object_id]

    def undo(self) -> bool:
        """Undo the last entry; return False if there is none."""
        return self._move(-1)

    def redo(self) -> bool:
        """Redo the last undone entry; return False if there is none."""
        return self._move(1)

    def save(self) -> None:
        """Write `session.json` atomically. Raises `StoreError`."""
        anchors = [a for known in self._state.objects.values() for a in known.anchors.values()]
        file = _File(
            events=tuple(_event(anchor) for anchor in anchors),
            tracking=self._state.jobs,
            page=_Page(
                source=str(self.source),
                title=self.title,
                log=tuple(self._log),
                position=self._position,
            ),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f".{FILE}.part"
            part.write_text(file.model_dump_json(by_alias=True), encoding="utf-8")
            os.replace(part, self.folder / FILE)
        except OSError as error:
            raise StoreError(
                f"The session cannot be saved in {self.folder}: {error.strerror or error}."
            ) from error

    def _move(self, step: int) -> bool:
        position = self._position + step
        if not 0 <= position <= len(self._log):
            return False
        self._position = position
        self._state = fold(self._log[:position])
        self.save()
        return True

    def _check_unlocked(self, object_id: int) -> None:
        known = self.object(object_id)
        if known.locked:
            raise PromptError(f"“{known.name}” is locked; unlock it in the list of objects first.")


def mask_ref(object_id: int, given: Handover) -> MaskRef:
    """Convert an object's mask to an event of a prompts JSON in the session's folder."""
    mask = f"{MASKS}/{given.mask}.png"
    return MaskRef(type="mask", frame=given.frame, object=object_id, mask=mask)


def _event(anchor: PromptedEntry) -> EventRef:
    if anchor.handover is None:
        return RemoveEvent(type="remove", frame=anchor.frame, object=anchor.object)
    return mask_ref(anchor.object, anchor.handover)
