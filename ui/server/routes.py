"""HTTP routes of the editing page: JSON, JPEG images, compressed label maps.

The response to every action is the session's whole state, so that tabs agree. Errors are answered
by `maskstream.ui.server.failures`.
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
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.examples import find_examples
from maskstream.ui.server.exports import Exports
from maskstream.ui.server.failures import add_error_handlers
from maskstream.ui.server.handlers import OpeningHandlers, SessionHandlers

STATIC = Path(__file__).parents[1] / "static"
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'"
)


def add_page(
    app: FastAPI,
    workspace: Workspace,
    live_runs: LiveRuns,
    exports: Exports,
    *,
    embed: bool = False,
) -> None:
    """Add the pages, their static files and their routes to a server.

    embed: other sites may show the pages in a frame.
    """
    add_error_handlers(app, workspace.folder)
    policy = _POLICY if embed else f"{_POLICY}; frame-ancestors 'none'"
    page_headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",  # the address holds the session's token
        "X-Content-Type-Options": "nosniff",
    }

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=page_headers)

    @app.get("/camera", include_in_schema=False)
    def camera() -> Response:
        return FileResponse(STATIC / "camera.html", headers=page_headers)

    app.include_router(make_router(workspace, exports))
    app.include_router(make_live_router(live_runs))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def make_router(workspace: Workspace, exports: Exports) -> APIRouter:
    """Create the router of a workspace, below `/api`."""
    router = APIRouter(prefix="/api")
    opening, session = OpeningHandlers(workspace), SessionHandlers(workspace, exports)

    @router.get("/about")
    def about() -> JsonObject:
        return _about_json(workspace)

    router.get("/examples/{name}.jpg")(opening.poster)
    router.post("/sessions")(opening.open_session)
    router.post("/fetch")(opening.fetch_video)
    router.put("/upload")(opening.upload)

    router.get("/s/{token}")(session.state)
    router.get("/s/{token}/progress")(session.progress)
    router.get("/s/{token}/image/{frame}")(session.image)
    router.get("/s/{token}/labels/{frame}")(session.labels)
    router.get("/s/{token}/frames/{first}")(session.frames)
    router.get("/s/{token}/proposals/{frame}")(session.proposals)
    router.get("/s/{token}/preview/{frame}")(session.preview)
    router.get("/s/{token}/timeline")(session.timeline)
    router.post("/s/{token}/prepare/{frame}")(session.prepare)
    router.post("/s/{token}/do")(session.act)
    router.post("/s/{token}/cutout/{frame}")(session.cutout)
    router.post("/s/{token}/export")(session.export)
    router.post("/s/{token}/export/cancel")(session.cancel_export)
    router.get("/s/{token}/download")(session.download)
    return router


def _about_json(workspace: Workspace) -> JsonObject:
    limits = workspace.limits
    return {
        "examples": [{"name": e.name, "title": e.title} for e in find_examples()],
        "roots": [str(root) for root in limits.roots],
        "upload_mb": limits.upload_mb,
        "propose": limits.propose,
        "models": [Path(workspace.config.model).name, *workspace.offered],
        "formats": [*formats_json()],
        "colours": [new_object(number).color for number in range(1, MAX_OBJECTS + 1)],
    }
