"""Files of a component: they come and go by the cache of the app that it is placed in."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from maskstream.pipeline.errors import PageError
from maskstream.ui.editing.workspace import Workspace


class CacheFiles:
    """Files between a workspace and Gradio's cache, linked where the disk allows it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def begin(self, given: FileData) -> str:
        """Create a session on an uploaded file; return its token.

        Raises `PageError` if it is too large, `ServerFullError` if no room is left, `SourceError`
        if it is not a video.
        """
        upload = Path(given.path).resolve()
        if not upload.is_relative_to(Path(get_upload_folder()).resolve()):
            raise PageError("Only uploaded files may be opened here.")
        try:
            size = upload.stat().st_size
        except OSError as error:
            raise PageError("The upload is not there (any more); upload it again.") from error
        token, file = self._workspace.new_upload(given.orig_name or upload.name, size)
        _link(upload, file)
        return self._workspace.begin(file, file.stem, token)

    def give(self, token: str, file: Path) -> str:
        """Place a file of a session in the cache, under a path that nobody can guess."""
        place = Path(get_upload_folder()) / secrets.token_hex(16) / file.name
        _link(file, place)
        return str(place)


def _link(file: Path, place: Path) -> None:
    """Make a file appear at another place, too. Raises `PageError`."""
    try:
        place.parent.mkdir(parents=True, mode=0o700)
        try:
            os.link(file, place)
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, place)
    except OSError as error:
        raise PageError(f"The file cannot be kept: {error.strerror or error}.") from error
