"""The live runs of a server: each has a name that nobody can guess, and there are not many."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PageError
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.sources.live import is_address
from maskstream.ui.camera.inputs import PushedImages, is_device
from maskstream.ui.camera.live_run import LiveRun
from maskstream.ui.server.workspace import Workspace, new_token

MAX_LIVE_RUNS = 2  # at a time: each has a network of its own


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A run, and where the browser's pictures go if they come from there."""

    run: LiveRun
    pushed: PushedImages | None


class LiveRuns:
    """The live runs of a server, by names that nobody can guess."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._rooms: dict[str, WatchedRun] = {}

    def begin(self, address: str | None) -> str:
        """Watch a camera; gives the run's name.

        address: of the server's; None: the browser sends pictures. Raises `PageError`,
        `SourceError`, `ModelError`.
        """
        text = None if address is None else self._checked(address.strip())
        with self._lock:
            self._rooms = {t: w for t, w in self._rooms.items() if w.run.active}
            if len(self._rooms) >= MAX_LIVE_RUNS:
                raise PageError(
                    f"{MAX_LIVE_RUNS} cameras are watched on this server already; stop one of them."
                )
            token = new_token()
            folder, config = self._workspace.folder / token, without_seeding(self._workspace.config)
            if text is None:
                pushed = PushedImages()
                run = LiveRun(LiveSession.open(pushed, config), folder, on_stop=pushed.close)
                self._rooms[token] = WatchedRun(run, pushed)
            else:
                run = LiveRun(LiveSession.open(text, config), folder)
                self._rooms[token] = WatchedRun(run, None)
        return token

    def find(self, token: str) -> WatchedRun:
        """The run of this name. Raises `PageError`."""
        with self._lock:
            if token not in self._rooms:
                raise PageError("This camera is not watched any more; begin anew.")
            return self._rooms[token]

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            runs = [watched.run for watched in self._rooms.values()]
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


def without_seeding(config: PipelineConfig) -> PipelineConfig:
    """The configuration, but nothing is followed that nobody clicked."""
    seeding = config.seeding.model_copy(update={"enabled": False})
    return config.model_copy(update={"seeding": seeding})
