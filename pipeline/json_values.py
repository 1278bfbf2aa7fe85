"""JSON values: what is written to and read from files and the network, at their edges only."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""An object of JSON, about to be written or just read; inside the program data have types."""
