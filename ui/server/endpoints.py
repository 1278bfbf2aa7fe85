"""Named endpoints for programs (`gradio_client`): open, click, box, track, export, state.

Gradio reads the signatures and docstrings to describe them (`view_api`), so annotations are types
here, not text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import gradio
from gradio.data_classes import FileData
from pydantic import ValidationError

from maskstream.pipeline.errors import MaskstreamError, PageError, PromptError
from maskstream.pipeline.types import SizeHW
from maskstream.ui.editing.actions import (
    BoxAction,
    ClickAction,
    ExportBody,
    TrackAction,
)
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.tracking_task import JobStatus
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.examples import find_example
from maskstream.ui.server.exports import Exports
from maskstream.ui.server.failures import sentence_of

_EVERY_S = 0.5  # between reports of progress

Json = dict[str, Any]


class Files(Protocol):
    """How files come to a server and leave it."""

    def begin(self, given: FileData) -> str:
        """Create a session on an uploaded file, as Gradio describes it; return its token."""
        ...

    def give(self, token: str, file: Path) -> str:
        """The path under which Gradio serves a file of a session."""
        ...


@contextmanager
def as_gradio_error(sessions: Path) -> Iterator[None]:
    """Raise a `MaskstreamError` as Gradio's error, whose sentence is shown."""
    try:
        yield
    except MaskstreamError as error:
        raise gradio.Error(sentence_of(error, sessions), print_exception=False) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        sentence = f"That cannot be done: {place}: {problem['msg']}."
        raise gradio.Error(sentence, print_exception=False) from error


class Endpoints:
    """The endpoints of a workspace. Methods raise `gradio.Error` with a sentence."""

    def __init__(self, workspace: Workspace, exports: Exports, files: Files) -> None:
        self.workspace = workspace
        self._exports = exports
        self._files = files

    def add(self, register: Callable[..., object], name: str) -> None:
        """Register the endpoints by a function of Gradio's. name: what it calls their name.

        They wait for each other in the line of jobs only; threads are limited by Gradio.
        """
        for function in (self.open, self.state, self.click, self.box, self.track, self.export):
            register(function, concurrency_limit=None, **{name: function.__name__})

    def open(
        self, video: FileData | None = None, example: str | None = None, path: str | None = None
    ) -> Json:
        """Open a video and begin a session, which all other endpoints take.

        Args:
            video: a file to upload: handle_file("clip.mp4").
            example: instead of a file, the name of an example: "shapes" is there always.
            path: instead of a file, a path on the server, where that is allowed.

        Returns:
            The state: "session", "width", "height", "fps", "start" and "end" (frame indices),
            "objects", "stale", "job".
        """
        with as_gradio_error(self.workspace.folder):
            return self.json(self._begin(video, example, path))

    def state(self, session: str) -> Json:
        """The state of a session.

        Args:
            session: what `open` returned as "session".

        Returns:
            The state, as `open` returns it.
        """
        with as_gradio_error(self.workspace.folder):
            return self.json(session)

    def click(
        self,
        session: str,
        frame: int,
        x: float,
        y: float,
        label: int = 1,
        object: int | None = None,
    ) -> Json:
        """Click on an object of a frame: create it, add to it, or subtract from it.

        Args:
            session: what `open` returned as "session".
            frame: frame index.
            x: pixels from the left edge of the frame.
            y: pixels from the top edge of the frame.
            label: 1 on the object, 0 on what does not belong to it.
            object: id of the object to correct; none for a new object.

        Returns:
            The state, with "object" (its id) and "mask" (its "box_xyxy", "area" and "score" on the
            frame).
        """
        with as_gradio_error(self.workspace.folder):
            values = {"frame": frame, "x": x, "y": y, "label": label, "object": object}
            return self.prompted(session, ClickAction.model_validate({"do": "click", **values}))

    def box(
        self,
        session: str,
        frame: int,
        xyxy: list[float],
        object: int | None = None,
    ) -> Json:
        """Prompt an object of a frame by a box around it.

        Args:
            session: what `open` returned as "session".
            frame: frame index.
            xyxy: left, top, right and bottom edge, pixels of the frame.
            object: id of the object; none for a new object.

        Returns:
            The state, with "object" and "mask" as `click` returns them.
        """
        with as_gradio_error(self.workspace.folder):
            values = {"frame": frame, "xyxy": xyxy, "object": object}
            return self.prompted(session, BoxAction.model_validate({"do": "box", **values}))

    def track(
        self, session: str, direction: Literal["both", "forward", "backward"] = "both"
    ) -> Iterator[Json]:
        """Track the objects through the video. Canceling the call stops tracking.

        Args:
            session: what `open` returned as "session".
            direction: from the prompts to both ends of the video, or one way only.

        Returns:
            The state, twice a second while it runs ("job" has "done" and "total" frames), and at
            the end.
        """
        with as_gradio_error(self.workspace.folder):
            editor = self.editor(session)
            self.workspace.perform(session, TrackAction(do="track", direction=direction))
            task = editor.task
            assert task is not None  # noqa: S101 - it was just started
            try:
                while task.active:
                    yield self.json(session)
                    task.wait(_EVERY_S)
            finally:
                if task.active:
                    task.stop()
            if task.status is JobStatus.FAILED:
                raise PromptError(task.message)
            yield self.json(session)

    def export(
        self,
        session: str,
        format: str = "overlay",
        objects: list[int] | None = None,
        soft: bool = False,
    ) -> FileData:
        """Export the tracked masks as one file: a video, or an archive of images or texts.

        Args:
            session: what `open` returned as "session".
            format: overlay, prores, vp9, matte, png, png-rgba, coco or another export format.
            objects: ids of the objects; all by default.
            soft: soft edges, for formats with alpha.

        Returns:
            The file, which the client downloads.
        """
        with as_gradio_error(self.workspace.folder):
            file = self.exported(session, format, objects, soft=soft)
            return self.given(session, file)

    # For these and for the component

    def editor(self, session: str) -> Editor:
        """The editor of a session. Raises `SessionNotFoundError`."""
        return self.workspace.editor(str(session))

    def json(self, session: str) -> Json:
        """The state of a session. Raises `SessionNotFoundError`."""
        return {"session": session, **self.editor(session).to_json()}

    def exported(
        self, session: str, form: str, objects: list[int] | None = None, *, soft: bool = False
    ) -> Path:
        """Export and wait for the file. Raises `MaskstreamError`."""
        editor = self.editor(session)
        wanted = tuple(editor.session.state.objects) if objects is None else tuple(objects)
        body = ExportBody(format=form, objects=wanted, soft=soft)
        task = self._exports.start(session, body)
        task.wait()
        if task.file is None:
            raise PageError(task.message or "The export was canceled.")
        return task.file

    def given(self, session: str, file: Path) -> FileData:
        """A file of a session as Gradio describes it."""
        return FileData(path=self._files.give(session, file), orig_name=file.name)

    def prompted(self, session: str, action: ClickAction | BoxAction) -> Json:
        """Click or draw a box; return the state with the mask. Raises `MaskstreamError`."""
        editor = self.editor(session)
        _check_inside(action, editor.info.size_hw)
        touched = self.workspace.perform(session, action)
        result = editor.result(action.frame)
        found = next(seen for seen in (result.objects if result else ()) if seen.id == touched)
        mask = {
            "box_xyxy": [*found.box_xyxy],
            "area": found.area,
            "score": round(min(found.score, 1.0), 3),
        }
        return {**self.json(session), "object": touched, "mask": mask}

    def _begin(self, video: FileData | None, example: str | None, path: str | None) -> str:
        if video is not None:
            return self._files.begin(FileData.model_validate(video))
        if example is not None:
            place, title = find_example(example, self.workspace.folder / "examples")
            return self.workspace.begin(place, title)
        if path is None:
            raise PageError("Give a video to open: a file, or the name of an example.")
        place = self.workspace.server_path(path)
        return self.workspace.begin(place, place.stem)


def _check_inside(action: ClickAction | BoxAction, size_hw: SizeHW) -> None:
    """Check that a click or box lies in the frame. Raises `PromptError`."""
    height, width = size_hw
    if isinstance(action, ClickAction):
        inside = 0 <= action.x < width and 0 <= action.y < height
    else:
        left, top, right, bottom = action.xyxy
        inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    if not inside:
        raise PromptError(
            f"That lies outside the frame, which is {width} pixels wide and {height} high."
        )
