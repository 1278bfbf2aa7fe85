"""Why a live input could not be opened, as a sentence that says what to do."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import av.error

from maskstream.pipeline.addresses import has_login, masked
from maskstream.pipeline.errors import SourceError, SourceNotFoundError, UnreadableSourceError

STANDARD_INPUT = "pipe:0"
"""FFmpeg's name of it."""
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def not_opened(target: str, error: Exception) -> SourceError:
    """The error to raise for one of FFmpeg's; passwords in `target` are masked."""
    if isinstance(error, FileNotFoundError | av.error.OptionNotFoundError):
        return SourceNotFoundError(f"There is no input {target}.")
    if target == STANDARD_INPUT and isinstance(error, av.error.InvalidDataError):
        return UnreadableSourceError(
            "standard input holds no video that FFmpeg knows: it takes a container (Matroska, "
            "MPEG-TS, Y4M), or raw frames with --size WIDTHxHEIGHT."
        )
    return UnreadableSourceError(f"{target} cannot be opened: {_why(target, error)}.")


def reason_of(error: Exception) -> str:
    """What FFmpeg says of an error, without the address."""
    if isinstance(error, av.error.ExitError):  # raised on timeout
        return "nothing came in time"
    return masked(getattr(error, "strerror", None) or str(error))


def _why(target: str, error: Exception) -> str:
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        if has_login(target):
            return "the server refuses the user name or the password; check both"
        return (
            "the server asks for a user name and a password; give them before the host, as in "
            "rtsp://USER:PASSWORD@HOST/PATH"
        )
    if isinstance(error, av.error.HTTPNotFoundError):
        return "the server has no stream of this path; check what follows the host"
    if isinstance(error, ConnectionRefusedError):
        return (
            "nothing listens on this port; check the port, and that the camera or the server is on"
        )
    if isinstance(error, av.error.InvalidDataError):
        return "what comes is not video that FFmpeg knows; check what follows the host"
    number = getattr(error, "errno", None)
    if number in _NO_ROUTE:
        return "there is no route to this host; check the address, and this machine's network"
    if number == errno.EIO and not _is_known_host(target):
        return "there is no host of this name; check the name, and this machine's network"
    return f"{reason_of(error)}; check that the camera or the server is on, and that it sends video"


def _is_known_host(target: str) -> bool:
    """Whether the host of an address has a network address; True if none is named."""
    try:
        host = urlsplit(target).hostname
        return host is None or bool(socket.getaddrinfo(host, None))
    except (OSError, ValueError):  # as well UnicodeError, of an impossible name
        return False
