"""The live runs of a server, by unguessable tokens; their number is limited."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from maskstream.pipeline.errors import PageError
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.sources.live import is_address
from maskstream.ui.camera.inputs import PushedImages, is_device
from maskstream.ui.camera.live_run import LiveRun
from maskstream.ui.editing.workspace import Workspace, new_token

MAX_LIVE_RUNS = 2  # at a time: each loads its own network


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A live run, and the queue for the browser's images if they come from there."""

    run: LiveRun
    pushed: PushedImages | None


class LiveRuns:
    """The live runs of a server, by unguessable tokens."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._runs: dict[str, WatchedRun] = {}

    def begin(self, address: str | None) -> str:
        """Start a live run on a camera; return its token.

        address: a camera of the server; None: the browser sends images. Raises `PageError`,
        `SourceError`, `ModelError`.
        """
        text = None if address is None else self._checked(address.strip())
        with self._lock:
            self._runs = {t: w for t, w in self._runs.items() if w.run.active}
            if len(self._runs) >= MAX_LIVE_RUNS:
                raise PageError(
                    f"{MAX_LIVE_RUNS} cameras are open on this server already; stop one of them."
                )
            token = new_token()
            folder, config = (
                self._workspace.folder / token,
                self._workspace.config.without_seeding(),
            )
            if text is None:
                pushed = PushedImages()
                run = LiveRun(LiveSession.open(pushed, config), folder, on_stop=pushed.close)
                self._runs[token] = WatchedRun(run, pushed)
            else:
                run = LiveRun(LiveSession.open(text, config), folder)
                self._runs[token] = WatchedRun(run, None)
        return token

    def find(self, token: str) -> WatchedRun:
        """The live run with this token. Raises `PageError`."""
        with self._lock:
            if token not in self._runs:
                raise PageError("This camera is no longer open; start a new one.")
            return self._runs[token]

    def close(self) -> None:
        """Stop all runs."""
        with self._lock:
            runs = [watched.run for watched in self._runs.values()]
        for run in runs:
            run.stop()
        for run in runs:
            run.wait(10.0)

    def _checked(self, text: str) -> str:
        if not self._workspace.limits.roots:
            raise PageError(
                "Cameras and streams of the server are switched off here; use your own camera."
            )
        if is_address(text) or is_device(text):
            return text
        return str(self._workspace.server_path(text))
