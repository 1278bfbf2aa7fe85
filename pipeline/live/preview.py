"""Preview page of a live run: image with masks, latency, governor; a click adds an object."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import cv2

from maskstream.pipeline.access import Access
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.endpoints import Endpoint
from maskstream.pipeline.rendering.draw import draw, scaled
from maskstream.pipeline.types import Frame, FrameResult

_PAGE = Path(__file__).parent / "preview.html"
_LONG_SIDE = 960
_PAUSE_S = 0.08  # between images, so that the page does not slow down the run
_WAIT_S = 1.0
_MAX_BODY = 64 * 1024
_ANSWER_S = 5.0
_BOUNDARY = "frame"
_COOKIE = "maskstream_preview"  # with the port: a browser sends it to all ports of a host


class PreviewServer:
    """A sink that serves the newest result as a web page.

    status: returns the JSON values shown beside the image. key: what a browser must present, which
    `url` holds; None: nothing. Images are encoded only while a viewer is connected, in the viewer's
    thread. Raises `ConfigError` if the endpoint is taken.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        status: Callable[[], dict[str, Any]],
        take: TakeCommand,
        key: str | None = None,
    ) -> None:
        self.status = status
        self.intake = CommandIntake(take)
        self._newest: tuple[Frame, FrameResult] | None = None
        self._changed = threading.Condition()
        self._closed = False
        try:
            self._server = _Server(endpoint, self)
        except OSError as error:
            raise ConfigError(
                f"the preview cannot be served at {endpoint}: {error.strerror}; choose another port"
            ) from error
        self._endpoint = replace(endpoint, port=self._server.server_address[1])
        self.access = Access([endpoint.host], key=key, cookie=f"{_COOKIE}_{self._endpoint.port}")
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="maskstream-preview", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the page, with the key if one is needed."""
        key = self.access.key
        return f"http://{self._endpoint}/" + ("" if key is None else f"?key={quote(key)}")

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest result."""
        with self._changed:
            self._newest = frame, result
            self._changed.notify_all()

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Stop serving."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def image_after(self, index: int) -> tuple[int, bytes] | None:
        """Wait for a frame after `index`: its index and JPEG, or None if none arrives."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._newest and self._newest[0].index > index), _WAIT_S
            )
            newest = self._newest
        if self._closed or newest is None or newest[0].index <= index:
            return None
        frame, result = newest
        height, width = frame.size_hw
        scale = min(1.0, _LONG_SIDE / max(height, width))
        size_hw = max(1, round(scale * height)), max(1, round(scale * width))
        shown = draw(frame.rgb(size_hw), scaled(result, size_hw))
        return frame.index, bytes(cv2.imencode(".jpg", shown[..., ::-1])[1])

    @property
    def closed(self) -> bool:
        """Whether the server has stopped."""
        return self._closed


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, endpoint: Endpoint, preview: PreviewServer) -> None:
        self.preview = preview
        self.address_family = endpoint.family
        super().__init__((endpoint.host, endpoint.port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30

    def do_GET(self) -> None:
        """Serve the page, the stream of images, or the status."""
        parts = urlsplit(self.path)
        if parts.path == "/" and parts.query:
            self._log_in(parse_qs(parts.query).get("key", [""])[0])
        elif not self._may_use():
            return
        elif self.path == "/":
            self._send(_PAGE.read_bytes(), "text/html; charset=utf-8")
        elif self.path == "/status":
            self._send(json.dumps(self.server.preview.status()).encode(), "application/json")
        elif self.path == "/stream":
            self._stream()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """Execute a command."""
        if not self._may_use():
            return
        length = int(self.headers.get("Content-Length") or 0)
        is_json = self.headers.get("Content-Type") == "application/json"  # no foreign form
        if self.path != "/command" or not 0 < length <= _MAX_BODY or not is_json:
            self.send_error(400)
            return
        answered = threading.Event()
        outcomes: list[Outcome] = []

        def answer(outcome: Outcome) -> None:
            outcomes.append(outcome)
            answered.set()

        self.server.preview.intake.receive(self.rfile.read(length), answer)
        answered.wait(_ANSWER_S)
        outcome = outcomes[0] if outcomes else Outcome(refused="no frame arrived to execute it on")
        self._send(json.dumps(outcome.to_json()).encode(), "application/json")

    def _may_use(self) -> bool:
        """Whether the request is allowed; one that is not is answered."""
        access = self.server.preview.access
        headers = {name.lower(): value for name, value in self.headers.items()}
        if access.key is None and not access.knows_host(headers.get("host", "")):
            self.send_error(421, "This server does not answer to this host name")
            return False
        if not access.has_key(headers):
            self.send_error(401, "Open the address with the key that `maskstream live` has printed")
            return False
        return True

    def _log_in(self, given: str) -> None:
        """Set the cookie for an address with the key, and go to the page."""
        access = self.server.preview.access
        if access.key is not None and not access.is_key(given):
            self.send_error(401, "The key in this address is not valid")
            return
        self.send_response(303)
        self.send_header("Location", "/")
        if access.key is not None:
            cookie = f"{access.cookie}={given}; Path=/; HttpOnly; SameSite=Strict"
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        index, pause = -1, threading.Event()
        try:
            while not self.server.preview.closed:
                newer = self.server.preview.image_after(index)
                if newer is None:
                    continue
                index, jpeg = newer
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                self.wfile.write(head.encode() + b"\r\n\r\n" + jpeg + b"\r\n")
                pause.wait(_PAUSE_S)
        except OSError:
            return  # the viewer has disconnected

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Suppress the request log on standard error."""
