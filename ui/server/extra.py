"""Gradio, which comes with the extra `ui`."""

from __future__ import annotations

from importlib import import_module

from maskstream.pipeline.errors import PageError


def need_gradio() -> None:
    """Check that Gradio is there. Raises `PageError` with how to install it."""
    try:
        import_module("gradio")
    except ImportError as error:
        raise PageError(
            "The page needs the extra `ui`: pip install 'maskstream[ui]' (or run make ui)."
        ) from error
