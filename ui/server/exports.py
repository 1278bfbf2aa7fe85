"""The exports of a server's sessions: one at a time each."""

from __future__ import annotations

from maskstream.pipeline.errors import PromptError
from maskstream.ui.editing.actions import ExportBody
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.export_task import ExportRequest, ExportTask
from maskstream.ui.editing.workspace import Workspace


class Exports:
    """The last export of each session, by its token."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._tasks: dict[str, ExportTask] = {}

    def of(self, token: str) -> ExportTask | None:
        """The last export of a session, if there was one."""
        return self._tasks.get(token)

    def start(self, token: str, wanted: ExportBody) -> ExportTask:
        """Start an export of a session.

        Raises `PromptError`, `ConfigError`, `ServerFullError`, `SessionNotFoundError`.
        """
        editor = self._workspace.editor(token)
        running = self._tasks.get(token)
        if running is not None and running.active:
            raise PromptError("An export is running already.")
        self._workspace.quota.check_space(editor.session.folder)
        place = editor.session.store
        if place is None:
            raise PromptError("There are no masks to export yet: track first.")
        request, slots = _request(editor, wanted), self._workspace.exports
        task = ExportTask(place, editor.session.folder, request, slots)
        self._tasks[token] = task
        return task


def _request(editor: Editor, wanted: ExportBody) -> ExportRequest:
    view = editor.view()
    return ExportRequest(
        format=wanted.format,
        title=view.title,
        objects=wanted.objects,
        first=view.first,
        last=view.last,
        masks=editor.final_masks(),
        edges=wanted.edges,
        background=wanted.background,
    )
