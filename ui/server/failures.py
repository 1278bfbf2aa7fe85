"""Error responses of the server: an HTTP status by exception type, and a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from maskstream.pipeline.errors import (
    ConfigError,
    MaskstreamError,
    PromptError,
    ServerFullError,
    SessionNotFoundError,
)

STATUS: Mapping[type[MaskstreamError], int] = {
    SessionNotFoundError: 404,
    ServerFullError: 503,
    ConfigError: 400,
    PromptError: 400,
    MaskstreamError: 422,
}
"""HTTP status of an exception type and its subclasses; the most derived match counts."""


def add_error_handlers(app: FastAPI, sessions: Path) -> None:
    """Register handlers: a `MaskstreamError` becomes {"error": message}, others status 500.

    sessions: the folder of the sessions; messages name files in it without their path, which holds
    the session's token.
    """

    def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, MaskstreamError)  # noqa: S101 - that is what it is registered for
        sentence = sentence_of(error, sessions)
        return JSONResponse({"error": sentence}, status_code=status_of(error))

    app.add_exception_handler(MaskstreamError, expected)
    app.add_exception_handler(Exception, _unexpected)


def sentence_of(error: MaskstreamError, sessions: Path) -> str:
    """The message of an error, which names files in the folder of the sessions without path."""
    inside = rf"{re.escape(str(sessions.resolve()))}/[^/\s]+/(?:upload/)?"
    return re.sub(inside, "", str(error).replace(str(sessions), str(sessions.resolve())))


def status_of(error: MaskstreamError) -> int:
    """The HTTP status for an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _unexpected(request: Request, error: Exception) -> Response:
    sentence = f"Something went wrong on the server ({type(error).__name__}); its log says more."
    return JSONResponse({"error": sentence}, status_code=500)
