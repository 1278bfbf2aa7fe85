"""Names of the classes of a store: events give each a number, in the order of first appearance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CLASS = "class"
"""Type of the event that names a class: `{"type": "class", "class": 0, "name": "person"}`."""


def class_names(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names by number."""
    return [str(event["name"]) for event in events if event.get("type") == CLASS]
