"""What happens when a visitor of the component clicks, tracks and exports.

Every handler takes the visitor's session (a token, or none yet) first. They are called by Gradio,
which reads the annotations, so these are types here, not text.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from maskstream.pipeline.errors import PromptError
from maskstream.ui.component.drawing import shown_frame, shown_scale
from maskstream.ui.editing.actions import ClickAction
from maskstream.ui.server.endpoints import Endpoints, Json, as_gradio_error

NEW_OBJECT = 0
ADD, SUBTRACT = "Add", "Subtract"
_OVERLAY = "overlay"

Update = dict[str, Any]
Shown = tuple[Any, ...]


class Handlers:
    """Handlers of the component's events. They raise `gradio.Error` with a sentence."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._workspace = endpoints.workspace

    def upload(self, session: str | None, file: str | None) -> Shown:
        """Open an uploaded video: session, frame slider, image, object, status, results."""
        if file is None:
            return self._closed(session)
        return self._opened(session, self._endpoints.open(FileData(path=file)))

    def example(self, session: str | None, name: str | None) -> Shown:
        """Open an example: as `upload`."""
        if name is None:
            return tuple(gr.skip() for _ in range(7))
        return self._opened(session, self._endpoints.open(example=name))

    def show(self, session: str | None, frame: int) -> Any:
        """The image of a frame."""
        if not session:
            return None
        with as_gradio_error(self._workspace.folder):
            return shown_frame(self._endpoints.editor(session), int(frame))

    def click(
        self, session: str | None, frame: int, chosen: int, mode: str, at: gr.SelectData
    ) -> Shown:
        """A click on the image: image, object, status."""
        with as_gradio_error(self._workspace.folder):
            editor = self._endpoints.editor(_opened(session))
            x, y = ((float(part) + 0.5) / shown_scale(editor) for part in at.index)
            action = ClickAction(
                do="click",
                frame=int(frame),
                x=x,
                y=y,
                label=0 if mode == SUBTRACT else 1,
                object=chosen if chosen != NEW_OBJECT else None,
            )
            state = self._endpoints.prompted(_opened(session), action)
            image = shown_frame(editor, int(frame))
            return image, _choices(state, state["object"]), _status(state)

    def undo(self, session: str | None, frame: int, chosen: int) -> Shown:
        """Undo the last action: image, object, status."""
        with as_gradio_error(self._workspace.folder):
            editor = self._endpoints.editor(_opened(session))
            editor.undo()
            state = self._endpoints.json(_opened(session))
            image = shown_frame(editor, min(max(int(frame), state["start"]), state["end"]))
            return image, _choices(state, chosen), _status(state)

    def track(
        self,
        session: str | None,
        frame: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio wants it
    ) -> Iterator[Shown]:
        """Track all objects: image, status, overlay video."""
        with as_gradio_error(self._workspace.folder):
            token = _opened(session)
        for state in self._endpoints.track(token):
            job = state["job"]
            progress((job["done"], job["total"]), unit="frames")
            yield gr.skip(), _status(state), gr.skip()
        with as_gradio_error(self._workspace.folder):
            editor = self._endpoints.editor(token)
            state = self._endpoints.json(token)
            yield shown_frame(editor, int(frame)), _status(state), gr.skip()
            if state["store"] is None:
                return
            overlay = self._endpoints.exported(token, _OVERLAY)
            yield gr.skip(), _status(state), self._endpoints.given(token, overlay).path

    def stop(self, session: str | None) -> None:
        """Stop tracking; finished frames are kept."""
        if not session:
            return
        with as_gradio_error(self._workspace.folder):
            task = self._endpoints.editor(session).task
            if task is not None and task.active:
                task.stop()

    def export(self, session: str | None, form: str) -> Update:
        """Export in a format: the file to download."""
        with as_gradio_error(self._workspace.folder):
            token = _opened(session)
            file = self._endpoints.given(token, self._endpoints.exported(token, form))
            return gr.update(value=file.path, visible=True)

    def leave(self, session: str | None) -> None:
        """Delete the session of a visitor who has left, or opens another video."""
        if session:
            self._workspace.discard(session)

    def _opened(self, before: str | None, state: Json) -> Shown:
        self.leave(before)
        editor = self._endpoints.editor(state["session"])
        first = state["start"]
        slider = gr.update(minimum=first, maximum=max(state["end"], first + 1), value=first)
        return (
            state["session"],
            slider,
            shown_frame(editor, first),
            _choices(state, NEW_OBJECT),
            _status(state),
            None,
            gr.update(value=None, visible=False),
        )

    def _closed(self, before: str | None) -> Shown:
        self.leave(before)
        return (
            None,
            gr.update(minimum=0, maximum=1, value=0),
            None,
            gr.update(choices=[("New object", NEW_OBJECT)], value=NEW_OBJECT),
            "",
            None,
            gr.update(value=None, visible=False),
        )


def _opened(session: str | None) -> str:
    if not session:
        raise PromptError("Open a video first.")
    return session


def _choices(state: Json, chosen: int) -> Update:
    """The list of objects, with one of them chosen."""
    known = [(each["name"], each["id"]) for each in state["objects"]]
    there = chosen if chosen in {number for _, number in known} else NEW_OBJECT
    return gr.update(choices=[("New object", NEW_OBJECT), *known], value=there)


def _status(state: Json) -> str:
    """One sentence about the session."""
    job = state["job"]
    if job is not None and job["status"] in ("waiting", "running", "paused", "stopping", "joining"):
        if job["status"] == "waiting":
            return f"Waiting for other visitors' tracking ({job['message']})."
        speed = f", {job['fps']} a second" if job["fps"] else ""
        return f"Tracking: {job['done']} of {job['total']} frames{speed}."
    if not state["objects"]:
        return "Click on an object."
    if state["stale"]:
        return "Click to correct the mask, then track."
    return "Tracked. Click where a mask is wrong and track again, or export."
