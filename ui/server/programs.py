"""Programs at the page's server: the named endpoints, and the files they send and get.

Uploads go into the folder of a session, so that the page's limits hold and they are swept with the
sessions. Gradio's client names a file by a path on the server; here it is a reference (folder of
Gradio's uploads, token, name) under which nothing lies: only `ProgramFiles` knows the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import FileResponse, Response
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from maskstream.pipeline.errors import PageError
from maskstream.ui.editing.quota import is_token
from maskstream.ui.editing.session import FILE
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.endpoints import Endpoints
from maskstream.ui.server.exports import Exports
from maskstream.ui.server.upload_form import UploadForm

_GONE = "That file is not on this server (any more); upload it again."


def add_programs(app: Any, workspace: Workspace, exports: Exports) -> None:
    """Add the named endpoints to a `gradio.Server`, and the routes of their files."""
    files = ProgramFiles(workspace, exports)
    Endpoints(workspace, exports, files).add(app.api, "name")
    app.post("/gradio_api/upload")(files.upload)
    app.get("/gradio_api/file={path:path}")(files.download)


class ProgramFiles:
    """Files of the sessions for Gradio's clients."""

    def __init__(self, workspace: Workspace, exports: Exports) -> None:
        self._workspace = workspace
        self._exports = exports

    async def upload(self, request: Request) -> list[str]:
        """Receive one file, as Gradio's client sends it; return its reference."""
        form = UploadForm(request)
        name = await form.name()
        token, file = await self._workspace.receive(name, form.parts())
        return [_reference(token, file.name)]

    def download(self, path: str) -> Response:
        """The file of the last export of a session, by its reference."""
        token, name = _parts(path)
        self._workspace.editor(token)
        task = self._exports.of(token)
        if task is None or task.file is None or task.file.name != name:
            raise PageError("That export no longer exists; export again.")
        return FileResponse(task.file, filename=name, headers={"Cache-Control": "no-store"})

    def begin(self, given: FileData) -> str:
        """Create a session on an uploaded file; return its token. Raises `PageError`."""
        token, name = _parts(given.path)
        file = self._workspace.upload_place(token, name)
        if not file.is_file() or (self._workspace.folder / token / FILE).exists():
            raise PageError(_GONE)
        return self._workspace.begin(file, file.stem, token)

    def give(self, token: str, file: Path) -> str:
        """The reference of an export."""
        return _reference(token, file.name)


def _reference(token: str, name: str) -> str:
    return str(Path(get_upload_folder()) / token / name)


def _parts(reference: str) -> tuple[str, str]:
    """Token and name of a file. Raises `PageError`."""
    place = Path(reference)
    if not place.is_relative_to(get_upload_folder()) or not is_token(place.parent.name):
        raise PageError(_GONE)
    return place.parent.name, place.name
