"""The upload of a file as a multipart form, read as it comes (RFC 7578)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from maskstream.pipeline.errors import PageError

_NO_FILE = "This is not the upload of one file."


class UploadForm:
    """The one file of a form. Raises `PageError` if the form is malformed or has another part."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise PageError(_NO_FILE)
        self._chunks = request.stream()
        self._name: str | None = None
        self._ended = False
        self._data: list[bytes] = []
        self._field, self._value = bytearray(), bytearray()
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._on_part,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._on_header,
                "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
                "on_end": self._on_end,
            },
        )

    async def name(self) -> str:
        """The file's name; reads as far as its first bytes."""
        while self._name is None:
            await self._read()
        return self._name

    async def parts(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        while True:
            while self._data:
                yield self._data.pop(0)
            if self._ended:
                return
            await self._read()

    async def _read(self) -> None:
        chunk = await anext(self._chunks, b"")
        if not chunk:
            raise PageError("The upload was interrupted; try again." if self._name else _NO_FILE)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise PageError(_NO_FILE) from error

    def _on_part(self) -> None:
        if self._name is not None:
            raise PageError(_NO_FILE)

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"filename" not in options:
                raise PageError(_NO_FILE)
            self._name = options[b"filename"].decode("utf-8", "replace") or "video"
        self._field.clear()
        self._value.clear()

    def _on_end(self) -> None:
        self._ended = True
