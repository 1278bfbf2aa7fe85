"""The browser page: video editing sessions and live cameras, and `click_to_track` for your app.

Nothing is imported before it is used; only `server` and `component` import Gradio.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskstream.ui.component.click_to_track import ClickToTrack as ClickToTrack
    from maskstream.ui.component.click_to_track import click_to_track as click_to_track

__all__ = ["ClickToTrack", "click_to_track"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'maskstream.ui' has no attribute '{name}'")
    from maskstream.ui.component import click_to_track as home

    found: object = getattr(home, name)
    globals()[name] = found
    return found
