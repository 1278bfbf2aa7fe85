"""All sessions of a server, each in a folder with an unguessable name.

Anybody who knows a session's token (part of the page's URL) may edit it; there is no list. Unused
sessions are deleted after a while, together with their uploads.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from maskstream.pipeline.config import DetectorConfig, PipelineConfig
from maskstream.pipeline.detectors.open import open_detector
from maskstream.pipeline.errors import MaskstreamError, PageError, SessionNotFoundError, SourceError
from maskstream.pipeline.sources.images import ImageSequence
from maskstream.ui.editing.actions import Action, TrackAction, perform
from maskstream.ui.editing.clicker import Segmenters, SharedDetector
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.quota import Limits, Quota, is_token, session_folders
from maskstream.ui.editing.session import FILE, Session
from maskstream.ui.editing.session_json import SessionProgress
from maskstream.ui.editing.slots import JobSlots

_MEASURED = 1 << 26  # bytes of an upload between two looks at the space that is left
_MAX_OPEN = 8  # editors in memory; the least recently used is closed first


class Workspace:
    """The sessions in `folder`. now_s: clock, seconds since the epoch.

    offered: configurations with other models, by name, that a session may choose. The detector of
    `config` is what Find asks; tracking does without it. Raises `DetectorError`.

    quota: of their space. exports: slots of their exports.
    """

    def __init__(
        self,
        folder: Path,
        config: PipelineConfig,
        limits: Limits,
        *,
        offered: Mapping[str, PipelineConfig] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        detector = open_detector(config.detector, threads=config.threads.inference)
        shared = None if detector is None else SharedDetector(detector)
        self.config = _without_detector(config)
        self.limits = limits
        self.quota = Quota(folder, limits)
        self.exports = JobSlots(limits.jobs, limits.queue)
        self._segmenters = Segmenters(self.config, shared)
        self.offered = {
            name: Segmenters(_without_detector(each), shared)
            for name, each in (offered or {}).items()
        }
        self._now_s = now_s
        self._tracking = JobSlots(limits.jobs, limits.queue)
        self._lock = threading.Lock()
        self._reopening = threading.Lock()
        self._open: dict[str, Editor] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise PageError(f"Sessions cannot be kept in {folder}: {error.strerror}.") from error

    def begin(self, source: Path, title: str, token: str | None = None) -> str:
        """Create a session on a video; return its token.

        token: of a session whose upload is there. Raises `SourceError`, `StoreError`,
        `ServerFullError`.
        """
        if token is None:
            self._make_room()
            token = new_token()
        session = Session(self.folder / token, source, title)
        try:
            editor = Editor(session, self._segmenters, self._tracking, self.offered)
            session.save()
        except MaskstreamError:
            shutil.rmtree(self.folder / token, ignore_errors=True)
            raise
        with self._lock:
            self._remember(token, editor)
        return token

    def editor(self, token: str) -> Editor:
        """The editor of a session, reopened if necessary.

        Raises `SessionNotFoundError`, `SourceError`.
        """
        known = self._known(token)
        if known is not None:
            return known
        folder = self._session_folder(token)
        with self._reopening:  # one at a time; recovery after a crash may take a while
            known = self._known(token)
            if known is not None:
                return known
            session = Session.reopen(folder)
            editor = Editor(session, self._segmenters, self._tracking, self.offered)
            with self._lock:
                self._remember(token, editor)
            return editor

    def perform(self, token: str, action: Action) -> int | None:
        """Perform an action in a session, as `perform` does, if it has the space for it."""
        editor = self.editor(token)
        if isinstance(action, TrackAction):
            self.quota.check_space(editor.session.folder)
        return perform(editor, action)

    def progress(self, token: str) -> SessionProgress:
        """What is going on in a session, without opening its video. Raises `PageError`."""
        editor = self._known(token)
        if editor is not None:
            task = editor.task
            job = None if task is None else task.progress()
            return SessionProgress.of(editor.session, job)
        return SessionProgress.of(Session.reopen(self._session_folder(token)), None)

    def _session_folder(self, token: str) -> Path:
        folder = self.folder / token
        if not is_token(token) or not (folder / FILE).is_file():
            raise SessionNotFoundError(
                "This session is not on this server (any more); open the video again."
            )
        return folder

    async def upload(self, name: str, parts: AsyncIterator[bytes], size: int | None) -> str:
        """Receive an upload and create a session on it; return its token.

        size: bytes, if known. Raises `PageError` if it is too large or no room is left,
        `SourceError` if it is not a video.
        """
        token, place = await self.receive(name, parts, size)
        return self.begin(place, place.stem, token)

    async def receive(
        self, name: str, parts: AsyncIterator[bytes], size: int | None = None
    ) -> tuple[str, Path]:
        """Receive a file into the folder of a new session; return its token and the file.

        Raises `PageError` as `upload` does.
        """
        token, place = self.new_upload(name, size)
        try:
            place.parent.mkdir(parents=True, mode=0o700)
            taken = await self._receive(place, parts)
            if size is not None and taken != size:
                raise PageError("The upload was interrupted; try again.")
        except OSError as error:
            shutil.rmtree(self.folder / token, ignore_errors=True)
            raise PageError(f"The upload cannot be kept: {error.strerror or error}.") from error
        except BaseException:
            shutil.rmtree(self.folder / token, ignore_errors=True)
            raise
        return token, place

    def new_upload(self, name: str, size: int | None) -> tuple[str, Path]:
        """A token and a place for a file of `size` bytes, if known, that is to be uploaded.

        Raises `PageError` if it is too large, `ServerFullError` if no room is left.
        """
        if size is not None:
            self.quota.check_upload(size)
        self._make_room(size or 0)
        token = new_token()
        return token, self.upload_place(token, name)

    def upload_place(self, token: str, name: str) -> Path:
        """Where the uploaded file of a session lies, under a safe form of its name."""
        safe = re.sub(r"[^\w. -]+", "_", Path(name.replace("\\", "/")).name).lstrip(".") or "video"
        return self.folder / token / "upload" / safe

    async def _receive(self, place: Path, parts: AsyncIterator[bytes]) -> int:
        """Write an upload to a file, within the limits; return its size."""
        taken = measured = 0
        with place.open("wb", buffering=0) as file:  # so that its size is known
            async for part in parts:
                taken += len(part)
                self.quota.check_upload(taken)
                if taken - measured >= _MEASURED:
                    self.quota.check_space(place.parents[1])
                    measured = taken
                file.write(part)
        return taken

    def _make_room(self, size: int = 0) -> None:
        """Delete unused sessions. Raises `ServerFullError` if there is no room for another one."""
        self.sweep()
        self.quota.check_sessions()
        self.quota.check_space(self.folder / "new", size)

    def server_path(self, text: str) -> Path:
        """Resolve a path of a video or images on the server, if it may be opened.

        Raises `PageError`, `SourceError`.
        """
        if not self.limits.roots:
            raise PageError("Paths on the server are switched off; upload the file instead.")
        try:
            path = Path(os.path.expanduser(text.strip())).resolve()
        except (ValueError, OSError) as error:  # a null character, a name that is too long
            raise PageError("This is not a path on the server.") from error
        if not all(self._allowed(place) for place in (path, *_images_of(path))):
            allowed = ", ".join(str(root) for root in self.limits.roots)
            raise PageError(f"Only files in {allowed} may be opened here (see `ui --allow`).")
        return path

    def _allowed(self, place: Path) -> bool:
        return any(place.is_relative_to(root) for root in self.limits.roots)

    def sweep(self) -> int:
        """Delete sessions unused for `age_h` hours; return how many."""
        oldest = self._now_s() - 3600 * self.limits.age_h
        gone = 0
        for folder in session_folders(self.folder):
            if _touched_s(folder) >= oldest:
                continue
            with self._lock:
                editor = self._open.get(folder.name)
                if editor is not None and editor.busy:
                    continue
                self._open.pop(folder.name, None)
            if editor is not None:
                editor.close()
            shutil.rmtree(folder, ignore_errors=True)
            gone += 1
        return gone

    def discard(self, token: str) -> None:
        """Delete a session, if there is one; its running job is stopped."""
        if not is_token(token):
            return
        with self._lock:
            editor = self._open.pop(token, None)
        if editor is not None:
            editor.close()
        shutil.rmtree(self.folder / token, ignore_errors=True)

    def close(self) -> None:
        """Close all sessions; running jobs are stopped, finished frames kept."""
        with self._lock:
            editors = list(self._open.values())
            self._open.clear()
        for editor in editors:
            editor.close()

    def _known(self, token: str) -> Editor | None:
        with self._lock:
            if token in self._open:
                self._open[token] = self._open.pop(token)
            return self._open.get(token)

    def _remember(self, token: str, editor: Editor) -> None:
        self._open[token] = editor
        idle = [t for t, e in self._open.items() if not e.busy and t != token]
        for old in idle[: max(0, len(self._open) - _MAX_OPEN)]:
            self._open.pop(old).close()


def _images_of(path: Path) -> list[Path]:
    """Resolved image files of a folder or a glob pattern; none for a video file."""
    if path.is_file():
        return []
    try:
        return [file.path.resolve() for file in ImageSequence(path).files()]
    except SourceError:
        return []  # opening it reports the error


def _without_detector(config: PipelineConfig) -> PipelineConfig:
    return config.model_copy(update={"detector": DetectorConfig()})


def new_token() -> str:
    """A random session token of 128 bits."""
    return secrets.token_urlsafe(16)


def _touched_s(folder: Path) -> float:
    """Last modification of a session, seconds since the epoch."""
    file = folder / FILE
    return (file if file.is_file() else folder).stat().st_mtime


def resolved_roots(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Resolve the folders whose files may be opened. Raises `PageError` if one does not exist."""
    for folder in folders:
        if not folder.is_dir():
            raise PageError(f"There is no folder {folder} to open videos from (--allow).")
    return tuple(folder.resolve() for folder in folders)
