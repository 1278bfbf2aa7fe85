"""`click_to_track`: open a video, click objects, track, download, in anybody's own Gradio app."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import PageError
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.examples import find_examples
from maskstream.ui.server.exports import Exports
from maskstream.ui.server.extra import need_gradio

_FORMATS = (
    ("Overlay (MP4)", "overlay"),
    ("Video with alpha (ProRes MOV)", "prores"),
    ("Video with alpha (WebM)", "vp9"),
    ("Matte (MP4)", "matte"),
    ("Label maps (PNG)", "png"),
    ("Mattes (PNG)", "png-matte"),
    ("Cutouts (PNG)", "png-rgba"),
    ("COCO (JSON)", "coco"),
)
_SWEEP_S = 600  # how often files that Gradio holds are looked over


@dataclass(frozen=True, slots=True)
class ClickToTrack:
    """What `click_to_track` placed: Gradio components, to listen to or to read.

    session: `gr.State` with the visitor's session. image, frame: the shown frame and its index.
    objects: the choice of the object. video: the overlay. file: the exported file.
    """

    workspace: Workspace
    session: Any
    image: Any
    frame: Any
    objects: Any
    video: Any
    file: Any
    close: Callable[[], None]


def click_to_track(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    folder: Path | str | None = None,
    upload_mb: int = 512,
    total_gb: float = 20.0,
    sessions: int = 100,
    age_h: float = 24.0,
    jobs: int = 1,
    endpoints: bool = True,
) -> ClickToTrack:
    """Place the components inside `with gradio.Blocks():`, and their named endpoints.

    Args:
        config: YAML configuration, as for `Pipeline.from_config`; overrides: `section.key=value`.
        overrides: settings over those of the configuration.
        folder: where sessions are kept; by default a temporary folder, deleted at the end.
        upload_mb: the largest video, MB.
        total_gb: disk space of all sessions, GB.
        sessions: how many are kept at a time.
        age_h: hours after which an unused session is deleted.
        jobs: tracking jobs, and exports, that run at a time; others wait.
        endpoints: also add the endpoints `open`, `click`, `box`, `track`, `export`, `state`.

    Raises:
        PageError: Gradio is missing, there are no `Blocks`, or the folder cannot be used.
        ConfigError: the configuration is wrong.
    """
    need_gradio()
    from gradio.context import Context
    from gradio.events import api

    from maskstream.ui.component.cache_files import CacheFiles
    from maskstream.ui.component.handlers import Handlers
    from maskstream.ui.server.endpoints import Endpoints

    blocks = Context.root_block
    if blocks is None:
        raise PageError("Call click_to_track() inside `with gradio.Blocks():`.")
    settings = load_config(None if config is None else Path(config), overrides)
    place = Path(tempfile.mkdtemp(prefix="maskstream-")) if folder is None else Path(folder)
    limits = Limits(
        upload_mb=upload_mb,
        total_gb=total_gb,
        sessions=sessions,
        age_h=age_h,
        jobs=jobs,
        propose=False,
    )
    workspace = Workspace(place, settings, limits)
    workspace.sweep()
    close = weakref.finalize(blocks, _close, workspace, temporary=folder is None)
    if blocks.delete_cache is None:
        blocks.delete_cache = (_SWEEP_S, round(3600 * age_h))
    programs = Endpoints(workspace, Exports(workspace), CacheFiles(workspace))
    if endpoints:  # before the components, whose listeners would else take the names
        programs.add(api, "api_name")
    return _place(Handlers(programs), workspace, close)


def _close(workspace: Workspace, *, temporary: bool) -> None:
    workspace.close()
    if temporary:
        shutil.rmtree(workspace.folder, ignore_errors=True)


def _place(handlers: Any, workspace: Workspace, close: Callable[[], None]) -> ClickToTrack:
    """Create the components, and connect them with the handlers."""
    import gradio as gr

    from maskstream.ui.component.handlers import ADD, NEW_OBJECT, SUBTRACT

    session = gr.State(None, delete_callback=handlers.leave)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            with gr.Row(equal_height=True):
                upload = gr.File(label="Video", file_types=["video"], height=120, scale=2)
                example = gr.Dropdown(
                    [(each.title, each.name) for each in find_examples()],
                    value=None,
                    label="or an example",
                )
            image = gr.Image(
                label="Frame",
                show_label=False,
                placeholder="Open a video, then click on an object.",
                format="jpeg",
                interactive=False,
                buttons=["fullscreen"],
                height=420,
            )
            frame = gr.Slider(0, 1, value=0, step=1, label="Frame")
            with gr.Row():
                objects = gr.Dropdown(
                    [("New object", NEW_OBJECT)], value=NEW_OBJECT, label="Object"
                )
                mode = gr.Radio([ADD, SUBTRACT], value=ADD, label="A click")
        with gr.Column(scale=2, min_width=280):
            status = gr.Markdown("Open a video, then click on an object.")
            with gr.Row():
                track = gr.Button("Track", variant="primary", min_width=80)
                stop = gr.Button("Stop", min_width=80)
                undo = gr.Button("Undo", min_width=80)
            video = gr.Video(label="Result", interactive=False, buttons=[], height=300)
            form = gr.Dropdown([*_FORMATS], value="overlay", label="Format")
            export = gr.Button("Export")
            file = gr.File(label="Download", interactive=False, visible=False)

    # Nobody waits for others but in the line of jobs; threads are limited by Gradio.
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}
    opened = [session, frame, image, objects, status, video, file]
    for source in (upload.upload, upload.clear):
        source(handlers.upload, [session, upload], opened, **private)
    example.select(handlers.example, [session, example], opened, **private)
    frame.change(
        handlers.show,
        [session, frame],
        image,
        show_progress="hidden",
        trigger_mode="always_last",
        **private,
    )
    image.select(
        handlers.click,
        [session, frame, objects, mode],
        [image, objects, status],
        show_progress="hidden",
        **private,
    )
    undo.click(handlers.undo, [session, frame, objects], [image, objects, status], **private)
    track.click(
        handlers.track,
        [session, frame],
        [image, status, video],
        show_progress_on=video,
        **private,
    )
    stop.click(handlers.stop, [session], None, queue=False, **private)
    export.click(handlers.export, [session, form], file, **private)
    return ClickToTrack(workspace, session, image, frame, objects, video, file, close)
