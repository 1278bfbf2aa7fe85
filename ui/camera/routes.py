"""Routes of the camera page: start, images with masks, clicks, recordings."""

from __future__ import annotations

import json
import zlib
from typing import Annotated, Literal

import cv2
import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.errors import PageError, QueueClosedError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.live.session import LiveResult
from maskstream.ui.camera.live_run import LiveRun
from maskstream.ui.camera.live_runs import LiveRuns
from maskstream.ui.editing.actions import BoxAction, ClickAction
from maskstream.ui.editing.export_task import zip_folder
from maskstream.ui.editing.images import fit_within, jpeg

_MAX_SIDE = 960
_WAIT_S = 2.0
_MAX_BYTES = 8 << 20  # of one image that a browser sends


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraRequest(_Body):
    """Which camera to open.

    address: a stream, camera or file of the server; None: the browser sends images.
    """

    address: str | None = None


class LivePlain(_Body):
    """An action without a position on the frame. object: id of the object to remove."""

    do: Literal["remove", "record", "finish", "stop"]
    object: int = 0


LiveAction = Annotated[ClickAction | BoxAction | LivePlain, Field(discriminator="do")]


def make_live_router(live_runs: LiveRuns) -> APIRouter:
    """Create the router of the camera page, below `/api/live`."""
    router = APIRouter(prefix="/api/live")
    handlers = LiveHandlers(live_runs)
    router.post("")(handlers.begin)
    router.get("/{token}")(handlers.state)
    router.post("/{token}/image")(handlers.image)
    router.get("/{token}/next")(handlers.newest)
    router.post("/{token}/do")(handlers.act)
    router.get("/{token}/recording")(handlers.recording)
    return router


class LiveHandlers:
    """Request handlers of the camera page."""

    def __init__(self, live_runs: LiveRuns) -> None:
        self._runs = live_runs

    def begin(self, wanted: CameraRequest) -> dict[str, str]:
        """Start a live run on a camera."""
        return {"token": self._runs.begin(wanted.address)}

    def state(self, token: str) -> JsonObject:
        """Status of a live run."""
        return self._runs.find(token).run.to_json()

    async def image(self, token: str, request: Request, stamp: float) -> Response:
        """Receive an image of the browser's camera."""
        watched = self._runs.find(token)
        if watched.pushed is None:
            raise PageError("This camera is the server's own.")
        if int(request.headers.get("content-length", 0)) > _MAX_BYTES:
            raise PageError("The camera's image is too large.")
        try:
            await run_in_threadpool(watched.pushed.push, await request.body(), stamp)
        except QueueClosedError as error:
            raise PageError("The camera has been stopped.") from error
        return Response(status_code=204)

    def newest(self, token: str, after: int = -1) -> Response:
        """The newest frame after this frame index, as JPEG, and its label map."""
        watched = self._runs.find(token)
        shown = watched.run.newest(after, _WAIT_S)
        about = watched.run.to_json()
        body = b""
        if shown is not None:
            stamps = {} if watched.pushed is None else watched.pushed.stamps
            about |= _about(shown) | {"stamp": stamps.get(shown.frame.index)}
            encoded = jpeg(shown.frame, _MAX_SIDE)
            body, about["jpeg"] = encoded + _labels(shown), len(encoded)
        headers = {"X-About": json.dumps(about), "Cache-Control": "no-store"}
        return Response(body, media_type="application/octet-stream", headers=headers)

    def act(self, token: str, action: LiveAction) -> JsonObject:
        """Perform an action."""
        run = self._runs.find(token).run
        object_id = _perform(run, action)
        return run.to_json() | {"object": object_id}

    def recording(self, token: str) -> Response:
        """The last recording, as a ZIP file."""
        finished = self._runs.find(token).run.recording
        if finished is None:
            raise PageError("There is no finished recording; press Record, then Finish.")
        archive = finished.with_name(f"{finished.name}.zip")
        zip_folder(finished, archive)
        return FileResponse(archive, filename=archive.name, headers={"Cache-Control": "no-store"})


def _perform(run: LiveRun, action: LiveAction) -> int | None:
    """Perform an action; return the id of the object it was about."""
    match action:
        case ClickAction():
            return run.click(action.frame, (action.x, action.y), action.label, action.object)
        case BoxAction():
            return run.box(action.frame, action.xyxy, action.object)
        case LivePlain(do="remove"):
            run.remove(action.object)
        case LivePlain(do="stop"):
            run.stop()
        case LivePlain():
            run.record(on=action.do == "record")
    return None


def _about(shown: LiveResult) -> JsonObject:
    height, width = shown.frame.size_hw
    rows, columns = fit_within(shown.frame.size_hw, _MAX_SIDE)
    found = shown.result.objects
    return {
        "frame": shown.frame.index,
        "size": [width, height],
        "labels": [columns, rows],
        "objects": [[o.id, round(min(o.score, 1.0), 3), o.state.name.lower()] for o in found],
    }


def _labels(shown: LiveResult) -> bytes:
    """The label map, uint8 [h, w] at the size of the JPEG, deflated."""
    rows, columns = fit_within(shown.frame.size_hw, _MAX_SIDE)
    labels = shown.result.labels.astype(np.uint8)
    small = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return zlib.compress(np.asarray(small, np.uint8).tobytes(), 1)
