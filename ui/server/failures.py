"""Error responses of the server: an HTTP status by exception type, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from maskstream.pipeline.errors import (
    ConfigError,
    MaskstreamError,
    PromptError,
    SessionNotFoundError,
)

STATUS: Mapping[type[MaskstreamError], int] = {
    SessionNotFoundError: 404,
    ConfigError: 400,
    PromptError: 400,
    MaskstreamError: 422,
}
"""HTTP status of an exception type and its subclasses; the most derived match counts."""


def add_error_handlers(app: FastAPI) -> None:
    """Register handlers: a `MaskstreamError` becomes {"error": message}, others status 500."""
    app.add_exception_handler(MaskstreamError, _expected)
    app.add_exception_handler(Exception, _unexpected)


def status_of(error: MaskstreamError) -> int:
    """The HTTP status for an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, MaskstreamError)  # noqa: S101 - that is what it is registered for
    return JSONResponse({"error": str(error)}, status_code=status_of(error))


def _unexpected(request: Request, error: Exception) -> Response:
    sentence = f"Something went wrong on the server ({error}); its log says more."
    return JSONResponse({"error": sentence}, status_code=500)
