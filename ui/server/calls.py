"""Bodies of the calls that programs make: JSON of bounded size, which names no address.

Gradio would fetch a file that is named by an address, past the page's own limits.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from maskstream.pipeline.errors import PageError
from maskstream.pipeline.json_values import JsonObject

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_LARGEST = 1 << 20  # bytes
_MALFORMED = "This is no call of an endpoint."


async def read_call(receive: Receive) -> bytes:
    """Read the body of a call. Raises `PageError` if it is too large or names an address."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise PageError("The call was interrupted.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _LARGEST:
            raise PageError(f"A call may have {_LARGEST >> 20} MB at most; upload files instead.")
    try:
        named = _names_address(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise PageError(_MALFORMED) from error
    if named:
        raise PageError("Videos at addresses are not fetched for programs; give the file itself.")
    return bytes(body)


def refused_argument(sentence: str) -> JsonObject:
    """A refusal in the form whose sentence Gradio's client shows."""
    return {
        "__type__": "validate",
        "is_valid": False,
        "parameter_name": "video",
        "message": sentence,
    }


def _names_address(value: object) -> bool:
    """Whether a JSON value describes a file by an address."""
    if isinstance(value, list):
        return any(_names_address(part) for part in value)
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    if isinstance(path, str) and path.lower().startswith(("http://", "https://")):
        return True
    return any(_names_address(part) for part in value.values())
