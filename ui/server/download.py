"""Download of videos by URL into a session's folder."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx

from maskstream.pipeline.errors import PageError
from maskstream.ui.editing.workspace import Workspace

_TIMEOUT_S = 20.0  # without data from the server


async def fetch(workspace: Workspace, url: str) -> str:
    """Fetch a video by HTTP and create a session on it; return its token.

    Editing needs random access, so the whole file is downloaded first. Raises `PageError` if it
    cannot be fetched, is too large, or addresses are disabled, `SourceError` if it is not a video.
    """
    if not workspace.limits.roots:
        raise PageError("Addresses are switched off on this server; upload the file instead.")
    address = urlsplit(url.strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        raise PageError(
            f"{url} is not a file's address, which begins with http:// or https://. Streams and "
            "cameras are opened under Camera."
        )
    name = PurePosixPath(unquote(address.path)).name or "video"
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=_TIMEOUT_S) as client,
            client.stream("GET", url.strip()) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise PageError(
                    f"{address.hostname} does not give this file ({answer.status_code} "
                    f"{answer.reason_phrase}); check the address."
                )
            length = answer.headers.get("content-length")
            plain = "content-encoding" not in answer.headers
            size = int(length) if plain and length is not None else None
            return await workspace.upload(name, answer.aiter_bytes(), size)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PageError(
            f"{address.hostname} cannot be reached ({error or type(error).__name__}); check the "
            "address and the network."
        ) from error
