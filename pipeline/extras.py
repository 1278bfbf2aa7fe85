"""Import of optional packages, when something that needs them is opened."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from maskstream.pipeline.errors import MissingExtraError


def need(module: str, what: str, install: str) -> Any:
    """Import a module. Raises `MissingExtraError` with how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{what} needs {install}") from error
