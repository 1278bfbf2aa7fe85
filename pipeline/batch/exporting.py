"""The exports of a task, beside its store."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.batch.files import exists, join, send
from maskstream.pipeline.batch.staging import Staged
from maskstream.pipeline.batch.tasks import BatchJob, Task
from maskstream.pipeline.errors import StoreExistsError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.registry import find_format
from maskstream.pipeline.store import MaskStore


def export_all(
    job: BatchJob, task: Task, store: MaskStore, staged: Staged, *, replaces: bool
) -> None:
    """Export a store in all formats of the job. Raises `MaskstreamError`.

    replaces: the store is new; else it was complete already, and its exports are kept.
    """
    for name in job.exports:
        _export(job, task, store, name, staged, replaces=replaces)


def _export(
    job: BatchJob, task: Task, store: MaskStore, name: str, staged: Staged, *, replaces: bool
) -> None:
    wanted = find_format(name)
    target = join(job.out, f"{task.name}.{name}{wanted.suffix}")
    is_whole = is_url(job.out) or wanted.suffix  # a folder may be unfinished
    if not replaces and is_whole and exists(target):
        return
    place = staged.folder / Path(target).name if is_url(job.out) else Path(target)
    path = staged.path if wanted.needs_video else None
    try:
        export_store(store, place, ExportChoice(name, overwrite=replaces, video=path))
    except StoreExistsError:
        if replaces:
            raise
        return
    if is_url(job.out):
        send(place, target)
