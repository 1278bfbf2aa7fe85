"""What the camera page asks the server for: begin, pictures with masks, clicks, recordings."""

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

_LONGEST = 960
_WAIT_S = 2.0
_MAX_BYTES = 8 << 20  # of one picture that a browser sends


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraRequest(_Body):
    """Which camera to watch. address: of a stream, camera or file of the server; None: the browser
    sends pictures.
    """

    address: str | None = None


class LivePlain(_Body):
    """A button. object: to remove."""

    do: Literal["remove", "record", "finish", "stop"]
    object: int = 0


LiveAction = Annotated[ClickAction | BoxAction | LivePlain, Field(discriminator="do")]


def make_live_router(live_runs: LiveRuns) -> APIRouter:
    """The routes of the camera page, below `/api/live`."""
    router = APIRouter(prefix="/api/live")
    handlers = LiveHandlers(live_runs)
    router.post("")(handlers.begin)
    router.get("/{token}")(handlers.state)
    router.post("/{token}/picture")(handlers.image)
    router.get("/{token}/next")(handlers.newest)
    router.post("/{token}/do")(handlers.act)
    router.get("/{token}/recording")(handlers.recording)
    return router


class LiveHandlers:
    """Answers to what the camera page's script asks for."""

    def __init__(self, live_runs: LiveRuns) -> None:
        self._rooms = live_runs

    def begin(self, wanted: CameraRequest) -> dict[str, str]:
        """Watch a camera."""
        return {"token": self._rooms.begin(wanted.address)}

    def state(self, token: str) -> JsonObject:
        """How a run goes."""
        return self._rooms.find(token).run.to_json()

    async def image(self, token: str, request: Request, stamp: float) -> Response:
        """Take a picture of the browser's camera."""
        watched = self._rooms.find(token)
        if watched.pushed is None:
            raise PageError("This camera is the server's own.")
        if int(request.headers.get("content-length", 0)) > _MAX_BYTES:
            raise PageError("The camera's picture is too large.")
        try:
            await run_in_threadpool(watched.pushed.push, await request.body(), stamp)
        except QueueClosedError as error:
            raise PageError("The camera has been stopped.") from error
        return Response(status_code=204)

    def newest(self, token: str, after: int = -1) -> Response:
        """The newest frame after this one, as JPEG, and its label map."""
        watched = self._rooms.find(token)
        shown = watched.run.newest(after, _WAIT_S)
        about = watched.run.to_json()
        body = b""
        if shown is not None:
            stamps = {} if watched.pushed is None else watched.pushed.stamps
            about |= _about(shown) | {"stamp": stamps.get(shown.frame.index)}
            encoded = jpeg(shown.frame, _LONGEST)
            body, about["jpeg"] = encoded + _labels(shown), len(encoded)
        headers = {"X-About": json.dumps(about), "Cache-Control": "no-store"}
        return Response(body, media_type="application/octet-stream", headers=headers)

    def act(self, token: str, action: LiveAction) -> JsonObject:
        """Do what a person did."""
        run = self._rooms.find(token).run
        touched = _carry_out_live(run, action)
        return run.to_json() | {"object": touched}

    def recording(self, token: str) -> Response:
        """The last recording, packed."""
        finished = self._rooms.find(token).run.recording
        if finished is None:
            raise PageError("There is no finished recording; press Record, then Finish.")
        archive = finished.with_name(f"{finished.name}.zip")
        zip_folder(finished, archive)
        return FileResponse(archive, filename=archive.name, headers={"Cache-Control": "no-store"})


def _carry_out_live(run: LiveRun, action: LiveAction) -> int | None:
    """Do what a person did; gives the object that was pointed at."""
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
    rows, columns = fit_within(shown.frame.size_hw, _LONGEST)
    found = shown.result.objects
    return {
        "frame": shown.frame.index,
        "size": [width, height],
        "labels": [columns, rows],
        "objects": [[o.id, round(min(o.score, 1.0), 3), o.state.name.lower()] for o in found],
    }


def _labels(shown: LiveResult) -> bytes:
    """The label map, uint8 [h, w] as large as the picture, deflated."""
    rows, columns = fit_within(shown.frame.size_hw, _LONGEST)
    labels = shown.result.labels.astype(np.uint8)
    small = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return zlib.compress(np.asarray(small, np.uint8).tobytes(), 1)
