"""The web application: our page, served by Gradio in server mode.

Gradio provides the server, its limits and `--share`; the page's files are part of this package, so
it needs no network.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maskstream.pipeline.access import Access, new_key
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PageError
from maskstream.ui.camera.live_runs import LiveRuns
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.workspace import Workspace, resolved_roots
from maskstream.ui.server.exports import Exports
from maskstream.ui.server.extra import need_gradio
from maskstream.ui.server.guard import LOGIN, Guard

ANYBODY_HERE = Access()
SHARED = Limits(session_gb=10, total_gb=100, sessions=200)
"""Limits by default where others can reach the page."""


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """Options of the server. port: None for the first free one from 7860 on. folder: of sessions.

    allow: folders whose videos may be opened by path; None: the working directory if only this
    machine can reach the page, else none. session_gb, total_gb, max_sessions: None: no limit if
    only this machine can reach the page, else `SHARED`'s. hostnames: names under which it is
    reached. embed: other sites may show the page in a frame. private_urls: videos may be fetched
    from private addresses.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    allow: Sequence[Path] | None = None
    upload_mb: int = 4096
    session_gb: float | None = None
    total_gb: float | None = None
    max_sessions: int | None = None
    age_h: float = 72.0
    jobs: int = 1
    queue: int = 16
    propose: bool = True
    hostnames: Sequence[str] = ()
    embed: bool = False
    private_urls: bool = False

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host) and not self.share


@dataclass(frozen=True, slots=True)
class Served:
    """A running server.

    share_url: None without a public link. key: what the login link holds, None if none is needed.
    """

    url: str
    share_url: str | None
    workspace: Workspace
    live_runs: LiveRuns
    server: Any
    key: str | None = None

    def login_url(self, url: str) -> str:
        """The address to open in a browser, with the key if one is needed."""
        return url if self.key is None else f"{url.rstrip('/')}{LOGIN}?key={quote(self.key)}"

    def wait(self) -> None:
        """Wait for a keyboard interrupt."""
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()

    def close(self) -> None:
        """Stop serving; running jobs are stopped, finished frames kept."""
        self.server.blocks.close(verbose=False)
        self.live_runs.close()
        self.workspace.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def limits_of(choice: ServerChoice) -> Limits:
    """Compute the limits for these options. Raises `PageError`."""
    here = [Path.cwd()] if choice.is_private else []
    roots = resolved_roots(here if choice.allow is None else choice.allow)
    default = Limits() if choice.is_private else SHARED
    return Limits(
        roots,
        choice.upload_mb,
        session_gb=_or(choice.session_gb, default.session_gb),
        total_gb=_or(choice.total_gb, default.total_gb),
        sessions=_or(choice.max_sessions, default.sessions),
        age_h=choice.age_h,
        jobs=choice.jobs,
        queue=choice.queue,
        propose=choice.propose,
        private_urls=choice.private_urls,
    )


def _or(chosen: float | None, default: float) -> float:
    return default if chosen is None else chosen


def make_app(
    workspace: Workspace,
    live_runs: LiveRuns,
    access: Access = ANYBODY_HERE,
    *,
    embed: bool = False,
) -> Any:
    """Create the Gradio server with the page and its routes. Raises `PageError` without Gradio."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    need_gradio()
    import gradio

    from maskstream.ui.server.programs import add_programs
    from maskstream.ui.server.routes import add_page

    class GuardedServer(gradio.Server):
        """The server behind the guard, which comes before Gradio's own middleware."""

        def build_middleware_stack(self) -> Guard:
            return Guard(super().build_middleware_stack(), access)

    app = GuardedServer(title="maskstream", docs_url=None, redoc_url=None, openapi_url=None)
    exports = Exports(workspace)
    add_page(app, workspace, live_runs, exports, embed=embed)
    add_programs(app, workspace, exports)
    return app


def serve(
    choice: ServerChoice,
    config: PipelineConfig,
    offered: Mapping[str, PipelineConfig] | None = None,
) -> Served:
    """Serve the page in background threads. offered: as for `Workspace`.

    Raises:
        PageError: Gradio is missing, the port is taken, or a folder does not exist.
    """
    workspace = Workspace(choice.folder, config, limits_of(choice), offered=offered)
    live_runs = LiveRuns(workspace)
    key = None if choice.is_private else new_key()
    names = [*choice.hostnames, choice.host]
    app = make_app(workspace, live_runs, Access(names, choice.share, key), embed=choice.embed)
    workspace.sweep()
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            _, url, share_url = app.launch(
                server_name=choice.host,
                server_port=choice.port,
                share=choice.share,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=f"{choice.upload_mb}mb",
                inline=False,
                ssr_mode=False,
                enable_monitoring=False,
            )
    except OSError as error:
        taken = f"port {choice.port} is" if choice.port else "the ports 7860 to 7959 are"
        raise PageError(
            f"The page cannot be served at {choice.host}: {taken} taken or not allowed; "
            "choose another one with --port."
        ) from error
    return Served(url, share_url or None, workspace, live_runs, app, key)
