"""Who may call the server: known hosts, no foreign pages, and a key where others can reach it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from pydantic import JsonValue

from maskstream.pipeline.access import Access
from maskstream.pipeline.errors import PageError
from maskstream.ui.server.calls import Message, Receive, read_call, refused_argument

Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

LOGIN = "/login"
# Everything that is served; the framework's own endpoints (proxies, monitoring, …) are not.
_PATHS = ("/", "/camera", LOGIN, "/favicon.ico", "/robots.txt")
_PREFIXES = ("/api/", "/static/")
# What `gradio_client` needs; files and uploads are answered by maskstream.ui.server.programs.
_CALL = "/gradio_api/queue/join"
_PROGRAM_PATHS = (
    "/config",
    "/gradio_api/info",
    "/gradio_api/upload",
    _CALL,
    "/gradio_api/queue/data",
    "/gradio_api/cancel",
)
_PROGRAM_PREFIXES = ("/gradio_api/heartbeat/", "/gradio_api/file=")
_STARTUP = "/gradio_api/startup-events"  # called by Gradio itself when it starts
_COOKIE_AGE_S = 30 * 24 * 3600


class Guard:
    """ASGI middleware that answers what must not reach the page's routes."""

    def __init__(self, app: AsgiApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request or a websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        path = scope["path"]
        refusal = self._refusal(path, headers)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        elif refusal is not None:
            await _answer(send, *refusal)
        elif path == LOGIN:
            await self._log_in(scope, send)
        elif path == _CALL:
            await self._call(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _call(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a call of an endpoint on, once it is read and found harmless."""
        try:
            body = await read_call(receive)
        except PageError as error:
            await _answer(send, 422, str(error), detail=[refused_argument(str(error))])
            return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._access.knows_host(host):
            return 421, (
                "This server does not answer to this host name; start it with --hostname NAME if "
                "it is reached under it."
            )
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Pages of other sites cannot use this server."
        if path == _STARTUP:
            return None
        if path not in (*_PATHS, *_PROGRAM_PATHS) and not path.startswith(
            (*_PREFIXES, *_PROGRAM_PREFIXES)
        ):
            return 404, "There is nothing here."
        if path not in (LOGIN, "/robots.txt", "/favicon.ico") and not self._access.has_key(headers):
            return 401, "Open the login link that the command `maskstream ui` has printed."
        return None

    async def _log_in(self, scope: Message, send: Send) -> None:
        """Set the cookie for a login link, and go to the page."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
        if self._access.key is None or not self._access.is_key(given):
            await _answer(send, 401, "This login link is not valid (any more).")
            return
        cookie = f"{self._access.cookie}={given}; Path=/; HttpOnly; SameSite=Lax"
        cookie += f"; Max-Age={_COOKIE_AGE_S}"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))]
        headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, sentence: str, **more: JsonValue) -> None:
    body = json.dumps({"error": sentence, **more}).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
