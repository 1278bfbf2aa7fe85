"""The exports of a task, beside its store."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.batch.files import SUCCESS, join, modified_s, send
from maskstream.pipeline.batch.staging import Staged
from maskstream.pipeline.batch.tasks import BatchJob, Task
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.output import MARKER
from maskstream.pipeline.exports.registry import find_format
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.store.layout import ROOT_FILE
from maskstream.pipeline.store.place import has_ended

_LEFTOVER_S = 86400.0  # age from which files of another machine's process are left over


def export_all(job: BatchJob, task: Task, store: MaskStore, staged: Staged) -> None:
    """Export a store in all formats of the job. Raises `MaskstreamError`.

    Exports that are newer than the store are kept; others are replaced.
    """
    for name in job.exports:
        _export(job, task, store, name, staged)


def _export(job: BatchJob, task: Task, store: MaskStore, name: str, staged: Staged) -> None:
    wanted = find_format(name)
    target = join(job.out, f"{task.name}.{name}{wanted.suffix}")
    if _is_newer(target, job.store_of(task), is_folder=not wanted.suffix):
        return
    video = staged.path if wanted.needs_video else None
    choice = ExportChoice(name, overwrite=True, video=video)
    if is_url(job.out):
        made = staged.folder / Path(target).name
        export_store(store, made, choice)
        send(made, target)
        return
    try:
        with _own_folder(Path(target)) as folder:
            made = folder / Path(target).name
            export_store(store, made, choice)
            _put(made, Path(target))
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}.") from error


def _is_newer(export: str, store: str, *, is_folder: bool) -> bool:
    """Whether an export is whole and was written after the store it is made of."""
    if is_folder and not is_url(export) and Path(export, MARKER).exists():
        return False
    made = modified_s(join(export, SUCCESS) if is_folder and is_url(export) else export)
    stored = modified_s(join(store, ROOT_FILE))
    return made is not None and stored is not None and made > stored


@contextmanager
def _own_folder(target: Path) -> Iterator[Path]:
    """A new folder of this try beside `target`, removed at the end. Raises `OSError`.

    So two processes can export the same video at once. Folders of processes that died are removed.
    """
    shared = target.with_name(f".{target.name}.part")
    folder = shared / f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    while not folder.is_dir():
        with suppress(FileNotFoundError):  # another process has removed `shared`
            folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        for other in shared.iterdir():
            if other == folder or _is_left_over(other):
                shutil.rmtree(other, ignore_errors=True)
        with suppress(OSError):  # others are at work in it
            shared.rmdir()


def _is_left_over(folder: Path) -> bool:
    """Whether the process that made this folder has ended, or may be taken for ended."""
    host, pid, _ = folder.name.rsplit("-", 2)
    try:
        old = time.time() - folder.stat().st_mtime > _LEFTOVER_S
    except FileNotFoundError:
        return True
    return old or has_ended(host, pid)


def _put(made: Path, target: Path) -> None:
    """Move a file or folder to its place; what is there is replaced as a whole."""
    if made.is_file():
        os.replace(made, target)
        return
    while True:
        with suppress(FileNotFoundError):
            os.rename(target, made.with_name(f"old-{uuid4().hex[:8]}"))
        try:
            os.rename(made, target)
        except OSError:
            if not target.exists():
                raise
        else:
            return
