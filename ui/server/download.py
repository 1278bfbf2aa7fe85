"""Download of videos by URL into a session's folder."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from maskstream.pipeline.errors import PageError
from maskstream.ui.editing.workspace import Workspace

_TIMEOUT_S = 20.0  # without data from the server
_MAX_HOPS = 5


async def fetch(workspace: Workspace, url: str) -> str:
    """Fetch a video by HTTP and create a session on it; return its token.

    Editing needs random access, so the whole file is downloaded first. Addresses that are not
    public are refused unless they are allowed, also after a redirect. Raises `PageError` if it
    cannot be fetched, is too large, or addresses are disabled, `SourceError` if it is not a video.
    """
    if not workspace.limits.roots:
        raise PageError("Addresses are switched off on this server; upload the file instead.")
    try:
        address = urlsplit(url.strip())
    except ValueError as error:
        raise PageError(f"{url} is not a file's address ({error}).") from error
    if address.scheme not in ("http", "https") or not address.hostname:
        raise PageError(
            f"{url} is not a file's address, which begins with http:// or https://. Streams and "
            "cameras are opened under Camera."
        )
    name = PurePosixPath(unquote(address.path)).name or "video"
    target = url.strip()
    try:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=_TIMEOUT_S))
            for _ in range(_MAX_HOPS):
                answer = await stack.enter_async_context(
                    _request(client, target, private=workspace.limits.private_urls)
                )
                if not answer.has_redirect_location:
                    break
                target = urljoin(target, answer.headers["location"])
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


def _request(
    client: httpx.AsyncClient, target: str, *, private: bool
) -> AbstractAsyncContextManager[httpx.Response]:
    """Ask for a file at the address that was checked, whatever its name is resolved to later."""
    url = httpx.URL(target)
    if url.scheme not in ("http", "https") or not url.host:
        raise PageError(f"{target} is not a file's address, which begins with http:// or https://.")
    resolved = url.host if private else _public_address(url.host, url.port or 0)
    host = f"[{resolved}]" if ":" in resolved and not resolved.startswith("[") else resolved
    return client.stream(
        "GET",
        url.copy_with(host=host),
        headers={"Host": url.netloc.decode("ascii")},
        extensions={"sni_hostname": url.host},
    )


def _public_address(host: str, port: int) -> str:
    """Resolve a host name; raises `PageError` if any of its addresses is not public."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise PageError(
            f"{host} cannot be reached ({error.strerror}); check the address."
        ) from error
    for address in found:
        if not ipaddress.ip_address(str(address).partition("%")[0]).is_global:
            raise PageError(
                f"{host} is an address of this machine or its network, from which videos are not "
                "fetched; start the page with --private-urls to allow it."
            )
    return str(sorted(map(str, found))[0])
