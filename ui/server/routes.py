"""What the page's script asks the server for: JSON, JPEG pictures, packed label maps.

Every answer to an action is the session's whole state, so that tabs agree. What goes wrong on
purpose (`MaskstreamError`) is answered with a sentence under `error`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from maskstream.pipeline.errors import ConfigError, MaskstreamError, PageError, PromptError
from maskstream.ui.camera.live_runs import LiveRuns
from maskstream.ui.camera.routes import make_live_router
from maskstream.ui.editing.actions import (
    CutoutBody,
    ExportBody,
    FetchRequest,
    OpenRequest,
    parse_action,
    perform,
)
from maskstream.ui.editing.entries import MAX_OBJECTS
from maskstream.ui.editing.export_task import ExportRequest, ExportTask, formats_json
from maskstream.ui.editing.images import first_image
from maskstream.ui.editing.session import new_object
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.download import fetch
from maskstream.ui.server.examples import find_example, find_examples

_PACKED = "application/octet-stream"
_LONGEST = 1920
_BINS = 1200
_PREVIEW = 896
_POSTER = 320
_NEVER = {"Cache-Control": "no-store"}


STATIC = Path(__file__).parents[1] / "static"
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'"
)


def add_page(app: FastAPI, workspace: Workspace, live_runs: LiveRuns) -> None:
    """Give a server the pages, their files and their routes."""
    app.add_exception_handler(MaskstreamError, error_response)
    app.add_exception_handler(Exception, _unexpected)

    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=headers)

    @app.get("/camera", include_in_schema=False)
    def camera() -> Response:
        return FileResponse(STATIC / "camera.html", headers=headers)

    app.include_router(make_router(workspace))
    app.include_router(make_live_router(live_runs))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def make_router(workspace: Workspace) -> APIRouter:
    """The routes over a workspace, below `/api`."""
    router = APIRouter(prefix="/api")
    exports: dict[str, ExportTask] = {}

    @router.get("/about")
    def about() -> dict[str, Any]:
        return {
            "examples": [{"name": e.name, "title": e.title} for e in find_examples()],
            "roots": [str(root) for root in workspace.limits.roots],
            "upload_mb": workspace.limits.upload_mb,
            "propose": workspace.limits.propose,
            "formats": formats_json(),
            "colours": [new_object(number).color for number in range(1, MAX_OBJECTS + 1)],
        }

    @router.get("/examples/{name}.jpg")
    def poster(name: str) -> Response:
        path, _ = find_example(name, workspace.folder / "examples")
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(first_image(path, _POSTER), media_type="image/jpeg", headers=headers)

    @router.post("/sessions")
    def open_session(wanted: OpenRequest) -> dict[str, str]:
        if wanted.path is not None:
            path = workspace.server_path(wanted.path)
            return {"token": workspace.begin(path, path.stem)}
        if wanted.example is None:
            raise PageError("Say which example or which path to open.")
        path, title = find_example(wanted.example, workspace.folder / "examples")
        return {"token": workspace.begin(path, title)}

    @router.post("/fetch")
    async def fetch_video(wanted: FetchRequest) -> dict[str, str]:
        return {"token": await fetch(workspace, wanted.url)}

    @router.put("/upload")
    async def upload(request: Request, name: str) -> dict[str, str]:
        given = request.headers.get("content-length")
        size = int(given) if given is not None and given.isdecimal() else None
        return {"token": await workspace.upload(name, request.stream(), size)}

    @router.get("/s/{token}")
    def state(token: str) -> dict[str, Any]:
        return _with_export(workspace.editor(token).to_json(), exports.get(token))

    @router.get("/s/{token}/picture/{frame}")
    def image(token: str, frame: int, side: int = _LONGEST) -> Response:
        encoded = workspace.editor(token).image(frame, min(side, 4096))
        return Response(
            encoded, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    @router.get("/s/{token}/labels/{frame}")
    def labels(token: str, frame: int, side: int = _LONGEST) -> Response:
        packed, (height, width), objects = workspace.editor(token).labels(frame, min(side, 4096))
        listed = [[o.id, round(min(o.score, 1.0), 3), int(o.state), *o.box_xyxy] for o in objects]
        return _packed(packed, {"size": [width, height], "objects": listed})

    @router.get("/s/{token}/proposals/{frame}")
    def proposals(token: str, frame: int) -> Response:
        editor = workspace.editor(token)
        height, width = editor.info.size_hw
        return _packed(editor.propose(frame), {"size": [width, height], "objects": []})

    @router.get("/s/{token}/timeline")
    def timeline(token: str) -> dict[str, Any]:
        return workspace.editor(token).timeline(_BINS)

    @router.post("/s/{token}/prepare/{frame}")
    def prepare(token: str, frame: int) -> Response:
        workspace.editor(token).prepare(frame)
        return Response(status_code=204)

    @router.post("/s/{token}/do")
    def act(token: str, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        editor = workspace.editor(token)
        touched = perform(editor, parse_action(body))
        return _with_export(editor.to_json(), exports.get(token)) | {"object": touched}

    @router.post("/s/{token}/cutout/{frame}")
    def cutout(token: str, frame: int, body: CutoutBody, side: int = _PREVIEW) -> Response:
        png = workspace.editor(token).cutout(frame, body.objects, body.edges, min(side, _LONGEST))
        return Response(png, media_type="image/png", headers=_NEVER)

    @router.post("/s/{token}/export")
    def export(token: str, body: ExportBody) -> dict[str, Any]:
        editor = workspace.editor(token)
        running = exports.get(token)
        if running is not None and running.status == "running":
            raise PromptError("An export is running already.")
        place = editor.session.store
        if place is None:
            raise PromptError("There are no masks to export yet: track first.")
        shown = editor.to_json()
        task = ExportTask(
            place,
            editor.session.folder,
            ExportRequest(
                format=body.format,
                title=editor.session.title,
                objects=body.objects,
                names={known["id"]: known["name"] for known in shown["objects"]},
                first=shown["first"],
                last=shown["last"],
                edges=body.edges,
                background=body.background,
            ),
        )
        exports[token] = task
        return _with_export(shown, task)

    @router.post("/s/{token}/export/cancel")
    def cancel(token: str) -> dict[str, Any]:
        workspace.editor(token)
        if token in exports:
            exports[token].cancel()
        return {}

    @router.get("/s/{token}/download")
    def download(token: str) -> Response:
        workspace.editor(token)
        task = exports.get(token)
        if task is None or task.file is None:
            raise PageError("That export is not there any more; export again.")
        return FileResponse(task.file, filename=task.file.name, headers=_NEVER)

    return router


def error_response(request: Request, error: Exception) -> Response:
    """An error as a sentence; 404 if the session is not there."""
    missing = isinstance(error, PageError) and "session is not on this server" in str(error)
    status = 404 if missing else 400 if isinstance(error, ConfigError | PromptError) else 422
    return JSONResponse({"error": str(error)}, status_code=status)


def _unexpected(request: Request, error: Exception) -> Response:
    sentence = f"Something went wrong on the server ({error}); its log says more."
    return JSONResponse({"error": sentence}, status_code=500)


def _packed(data: bytes, about: Mapping[str, Any]) -> Response:
    headers = {"Content-Encoding": "gzip", "X-About": json.dumps(about), **_NEVER}
    return Response(data, media_type=_PACKED, headers=headers)


def _with_export(values: dict[str, Any], task: ExportTask | None) -> dict[str, Any]:
    return values | {"export": None if task is None else task.to_json()}
