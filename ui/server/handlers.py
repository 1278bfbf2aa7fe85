"""Request handlers of the editing page; `maskstream.ui.server.routes` defines their addresses.

Coordinates are pixels of the displayed frame; `side` is the longer side of the image to send.
"""

from __future__ import annotations

import gzip
import json
from typing import Annotated

import numpy as np
from fastapi import Body, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import JsonValue

from maskstream.pipeline.errors import PageError
from maskstream.pipeline.json_values import JsonObject
from maskstream.ui.editing.actions import (
    CutoutBody,
    ExportBody,
    FetchRequest,
    OpenRequest,
    parse_action,
)
from maskstream.ui.editing.entries import Click
from maskstream.ui.editing.images import first_image, shrink_labels
from maskstream.ui.editing.session_json import SessionView
from maskstream.ui.editing.shown import ShownMasks
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.download import fetch
from maskstream.ui.server.examples import find_example
from maskstream.ui.server.exports import Exports

_PACKED = "application/octet-stream"
_MAX_SIDE = 1920
_BINS = 1200
_PREVIEW = 896
_POSTER = 320
_FRAMES_MAX = 32
_Coordinate = Annotated[float, Query(allow_inf_nan=False)]
_NEVER = {"Cache-Control": "no-store"}


class OpeningHandlers:
    """Handlers that create a session from an example, a path, an address or an upload."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._examples = workspace.folder / "examples"

    def poster(self, name: str) -> Response:
        """First frame of an example as JPEG."""
        path, _ = find_example(name, self._examples)
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(first_image(path, _POSTER), media_type="image/jpeg", headers=headers)

    def open_session(self, wanted: OpenRequest) -> dict[str, str]:
        """Create a session on an example or a path on the server."""
        if wanted.path is not None:
            path = self._workspace.server_path(wanted.path)
            return {"token": self._workspace.begin(path, path.stem)}
        if wanted.example is None:
            raise PageError("Say which example or which path to open.")
        path, title = find_example(wanted.example, self._examples)
        return {"token": self._workspace.begin(path, title)}

    async def fetch_video(self, wanted: FetchRequest) -> dict[str, str]:
        """Create a session on a video fetched by URL."""
        return {"token": await fetch(self._workspace, wanted.url)}

    async def upload(self, request: Request, name: str) -> dict[str, str]:
        """Create a session on an uploaded file."""
        given = request.headers.get("content-length")
        size = int(given) if given is not None and given.isdecimal() else None
        return {"token": await self._workspace.upload(name, request.stream(), size)}


class SessionHandlers:
    """Handlers of one session, by its token."""

    def __init__(self, workspace: Workspace, exports: Exports) -> None:
        self._workspace = workspace
        self._exports = exports

    def state(self, token: str) -> JsonObject:
        """State of the session, without pixels."""
        return self._state_json(token, self._workspace.editor(token).view())

    def progress(self, token: str) -> JsonObject:
        """What is going on in the session, for a list of sessions."""
        task = self._exports.of(token)
        export = None if task is None else task.to_json()
        return self._workspace.progress(token).to_json() | {"export": export}

    def image(self, token: str, frame: int, side: int = _MAX_SIDE) -> Response:
        """A frame as JPEG."""
        encoded = self._workspace.editor(token).shown.image(frame, min(side, 4096))
        return Response(
            encoded, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    def labels(self, token: str, frame: int, side: int = _MAX_SIDE) -> Response:
        """The label map of a frame, its objects, and after it the covered parts of objects.

        A covered part is a byte per pixel of its window; the header has id, x, y, width, height.
        """
        return _packed(*_layers(self._workspace.editor(token).shown, frame, min(side, 4096)))

    def frames(self, token: str, first: int, count: int = 16, side: int = 960) -> Response:
        """Consecutive frames for playback, with their masks.

        Four bytes say how long the JSON list after them is; then for every frame of the list come
        its JPEG and its compressed masks, as `labels` gives them.
        """
        editor = self._workspace.editor(token)
        listed: list[JsonObject] = []
        parts: list[bytes] = []
        for frame in range(first, min(first + min(count, _FRAMES_MAX), editor.frames.stop)):
            image = editor.shown.image(frame, min(side, _MAX_SIDE))
            packed, about = _layers(editor.shown, frame, min(side, _MAX_SIDE))
            listed.append(
                {"frame": frame, "jpeg": len(image), "packed": len(packed), "about": about}
            )
            parts += [image, packed]
        head = json.dumps(listed).encode()
        content = b"".join([len(head).to_bytes(4, "little"), head, *parts])
        return Response(content, media_type=_PACKED, headers=_NEVER)

    def proposals(self, token: str, frame: int) -> Response:
        """Proposals of a frame as a label map, with score and class of each, from 1 on."""
        editor = self._workspace.editor(token)
        height, width = editor.info.size_hw
        packed, found = editor.propose(frame)
        objects: list[JsonValue] = [
            {"score": round(each.score, 3), "label": each.label} for each in found
        ]
        about: JsonObject = {"size": [width, height], "objects": objects}
        return _packed(packed, about)

    def preview(
        self,
        token: str,
        frame: int,
        x: _Coordinate,
        y: _Coordinate,
        label: Annotated[int, Query(ge=0, le=1)] = 1,
        object: int | None = None,
        side: Annotated[int, Query(ge=1)] = _MAX_SIDE,
    ) -> Response:
        """Mask that a click would give, as a label map; 204 while a click is being answered."""
        editor = self._workspace.editor(token)
        click = Click(x=x, y=y, label=1 if label else 0)
        mask = editor.preview(frame, click, object)
        if mask is None:
            return Response(status_code=204, headers=_NEVER)
        labels = shrink_labels(mask, min(side, _MAX_SIDE))
        about: JsonObject = {"size": [*labels.shape[::-1]], "objects": []}
        return _packed(gzip.compress(labels.tobytes(), 1), about)

    def timeline(self, token: str) -> JsonObject:
        """Confidence over time, and the review items."""
        return self._workspace.editor(token).shown.timeline(_BINS).to_json()

    def prepare(self, token: str, frame: int) -> Response:
        """Encode a frame before the first click on it."""
        self._workspace.editor(token).prepare(frame)
        return Response(status_code=204)

    def act(self, token: str, body: Annotated[JsonObject, Body()]) -> JsonObject:
        """Perform an action."""
        editor = self._workspace.editor(token)
        touched = self._workspace.perform(token, parse_action(body))
        return self._state_json(token, editor.view()) | {"object": touched}

    def cutout(self, token: str, frame: int, body: CutoutBody, side: int = _PREVIEW) -> Response:
        """Cutout of objects on a frame as PNG, with the edges of an export."""
        shown = self._workspace.editor(token).shown
        png = shown.cutout(frame, body.objects, body.edges, min(side, _MAX_SIDE))
        return Response(png, media_type="image/png", headers=_NEVER)

    def export(self, token: str, body: ExportBody) -> JsonObject:
        """Start an export."""
        editor = self._workspace.editor(token)
        self._exports.start(token, body)
        return self._state_json(token, editor.view())

    def cancel_export(self, token: str) -> JsonObject:
        """Cancel the running export, if there is one."""
        self._workspace.editor(token)
        task = self._exports.of(token)
        if task is not None:
            task.cancel()
        return {}

    def download(self, token: str) -> Response:
        """File of the last export."""
        self._workspace.editor(token)
        task = self._exports.of(token)
        if task is None or task.file is None:
            raise PageError("That export no longer exists; export again.")
        return FileResponse(task.file, filename=task.file.name, headers=_NEVER)

    def _state_json(self, token: str, view: SessionView) -> JsonObject:
        task = self._exports.of(token)
        return view.to_json() | {"export": None if task is None else task.to_json()}


def _layers(shown: ShownMasks, frame: int, side: int) -> tuple[bytes, JsonObject]:
    """Masks of a frame, compressed, and what describes them."""
    layers = shown.layers(frame, side)
    height, width = layers.labels.shape
    about: JsonObject = {
        "size": [width, height],
        "objects": [
            [o.id, round(min(o.score, 1.0), 3), int(o.state), *o.box_xyxy] for o in layers.objects
        ],
        "covered": [
            [part.object_id, part.x0, part.y0, *part.mask.shape[::-1]] for part in layers.covered
        ],
    }
    parts = [layers.labels, *(part.mask.astype(np.uint8) for part in layers.covered)]
    return gzip.compress(b"".join(part.tobytes() for part in parts), 1), about


def _packed(data: bytes, about: JsonObject) -> Response:
    headers = {"Content-Encoding": "gzip", "X-About": json.dumps(about), **_NEVER}
    return Response(data, media_type=_PACKED, headers=headers)
