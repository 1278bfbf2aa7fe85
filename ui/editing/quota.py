"""Limits of a server: bytes, sessions, jobs, and how they are kept."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.errors import PageError, ServerFullError

_MIB = 1 << 20
_GIB = 1 << 30
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server. roots: folders from which server paths may be opened, if any.

    upload_mb: the largest upload. session_gb, total_gb: disk space of one session and of all, with
    uploads, masks and exports. sessions: number of sessions kept. age_h: hours after which an
    unused session is deleted. jobs: tracking jobs and exports that run at a time, of each kind;
    queue: of those that wait. propose: find proposals when a video is opened. private_urls: videos
    may be fetched from addresses that are not public.
    """

    roots: tuple[Path, ...] = ()
    upload_mb: int = 4096
    session_gb: float = math.inf
    total_gb: float = math.inf
    sessions: float = math.inf
    age_h: float = 72.0
    jobs: int = 1
    queue: int = 16
    propose: bool = True
    private_urls: bool = False


class Quota:
    """Checks the sessions in a folder against limits, before and while they grow."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def check_upload(self, size: int) -> None:
        """Raise `PageError` if a file of `size` bytes is too large to upload."""
        if size > self._limits.upload_mb * _MIB:
            raise PageError(
                f"The file is too large to upload ({size / _MIB:.0f} MB, at most "
                f"{self._limits.upload_mb} MB here); open it by its path on the server, or cut it."
            )

    def check_sessions(self) -> None:
        """Raise `ServerFullError` if no further session may be created."""
        if len(session_folders(self._folder)) >= self._limits.sessions:
            raise ServerFullError(
                f"This server keeps at most {self._limits.sessions:.0f} sessions; the unused ones "
                f"are deleted after {self._limits.age_h:g} hours. Try again later."
            )

    def check_space(self, session: Path, more: int = 0) -> None:
        """Raise `ServerFullError` if a session may not take `more` bytes, or no further ones."""
        limits = self._limits
        if limits.session_gb < math.inf and _size(session) + more >= limits.session_gb * _GIB:
            raise ServerFullError(
                f"This session has used its {limits.session_gb:g} GB on the server; open a new one."
            )
        if limits.total_gb < math.inf and _size(self._folder) + more >= limits.total_gb * _GIB:
            raise ServerFullError(
                f"The {limits.total_gb:g} GB for sessions on this server are used; what is unused "
                f"is deleted after {limits.age_h:g} hours. Try again later."
            )


def session_folders(folder: Path) -> list[Path]:
    """Folders of sessions in a folder, by their names."""
    return [place for place in folder.iterdir() if is_token(place.name) and place.is_dir()]


def is_token(text: str) -> bool:
    """Whether a text has the form of a session's token."""
    return _TOKEN.fullmatch(text) is not None


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(place, file)).st_size
            except OSError:
                continue
    return total
