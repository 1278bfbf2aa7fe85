"""What the page's script asks the server for: JSON, JPEG pictures, packed label maps.

Every answer to an action is the session's whole state, so that tabs agree. What goes wrong is
answered as `maskstream.ui.server.failures` says.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from maskstream.pipeline.json_values import JsonObject
from maskstream.ui.camera.live_runs import LiveRuns
from maskstream.ui.camera.routes import make_live_router
from maskstream.ui.editing.entries import MAX_OBJECTS
from maskstream.ui.editing.export_task import formats_json
from maskstream.ui.editing.session import new_object
from maskstream.ui.editing.workspace import Limits, Workspace
from maskstream.ui.server.examples import find_examples
from maskstream.ui.server.failures import add_error_handlers
from maskstream.ui.server.handlers import OpeningHandlers, SessionHandlers

STATIC = Path(__file__).parents[1] / "static"
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'"
)
_PAGE_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}


def add_page(app: FastAPI, workspace: Workspace, live_runs: LiveRuns) -> None:
    """Give a server the pages, their files and their routes."""
    add_error_handlers(app)

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=_PAGE_HEADERS)

    @app.get("/camera", include_in_schema=False)
    def camera() -> Response:
        return FileResponse(STATIC / "camera.html", headers=_PAGE_HEADERS)

    app.include_router(make_router(workspace))
    app.include_router(make_live_router(live_runs))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def make_router(workspace: Workspace) -> APIRouter:
    """The routes over a workspace, below `/api`."""
    router = APIRouter(prefix="/api")
    opening, session = OpeningHandlers(workspace), SessionHandlers(workspace)

    @router.get("/about")
    def about() -> JsonObject:
        return _about_json(workspace.limits)

    router.get("/examples/{name}.jpg")(opening.poster)
    router.post("/sessions")(opening.open_session)
    router.post("/fetch")(opening.fetch_video)
    router.put("/upload")(opening.upload)

    router.get("/s/{token}")(session.state)
    router.get("/s/{token}/picture/{frame}")(session.image)
    router.get("/s/{token}/labels/{frame}")(session.labels)
    router.get("/s/{token}/proposals/{frame}")(session.proposals)
    router.get("/s/{token}/timeline")(session.timeline)
    router.post("/s/{token}/prepare/{frame}")(session.prepare)
    router.post("/s/{token}/do")(session.act)
    router.post("/s/{token}/cutout/{frame}")(session.cutout)
    router.post("/s/{token}/export")(session.export)
    router.post("/s/{token}/export/cancel")(session.cancel_export)
    router.get("/s/{token}/download")(session.download)
    return router


def _about_json(limits: Limits) -> JsonObject:
    return {
        "examples": [{"name": e.name, "title": e.title} for e in find_examples()],
        "roots": [str(root) for root in limits.roots],
        "upload_mb": limits.upload_mb,
        "propose": limits.propose,
        "formats": [*formats_json()],
        "colours": [new_object(number).color for number in range(1, MAX_OBJECTS + 1)],
    }
