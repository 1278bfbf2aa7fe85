"""Types of JSON values, for reading and writing files and network data."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object; only for input and output, other data are typed."""
