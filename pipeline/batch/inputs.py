"""Inputs of a batch: files, folders, patterns and manifests become tasks, one by one."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.batch.files import find_urls, is_folder, join, path_of
from maskstream.pipeline.batch.manifest import Row, is_manifest, read_manifest
from maskstream.pipeline.batch.tasks import Task
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError
from maskstream.pipeline.sources.images import SUFFIXES as IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mxf", ".mts", ".m2ts", ".ts", ".mpg"}
    | {".mpeg", ".wmv", ".flv", ".ogv", ".3gp"}
)
_WILDCARDS = "*?["
_YES_OR_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def tasks_of(inputs: Sequence[str], out: str | None = None) -> Iterator[Task]:
    """Yield the tasks of all inputs in order, reading manifests and folders as they go.

    inputs: video files, image sequences, folders (of videos or image sequences, searched through),
    glob patterns, manifests, and URLs of all but image sequences. out: the output folder or URL;
    what patterns match below it is left out. A row that cannot be run is a task with a `problem`.

    Raises:
        ConfigError: a manifest cannot be read. SourceNotFoundError: an input matches nothing.
    """
    rows = (row for target in inputs for row in _rows(target, out))
    for number, row in enumerate(rows):
        yield _task(number, row)


def check_outside(out: str, inputs: Iterable[str]) -> None:
    """Raise `ConfigError` if the output folder lies in an input folder, which it would become."""
    if is_url(out):
        return
    place = Path(out).resolve()
    for target in inputs:
        if (
            not is_url(target)
            and Path(target).is_dir()
            and place.is_relative_to(Path(target).resolve())
        ):
            raise ConfigError(
                f"The output {out} lies inside the input {target}: give another output, so that "
                "results are not taken for videos."
            )


def _rows(target: str, out: str | None) -> Iterator[Row | str]:
    if is_manifest(target):
        folder = target.rpartition("/")[0]
        for row in read_manifest(target):
            yield row if isinstance(row, str) else _beside(row, folder)
    elif is_url(target):
        yield from _urls(target, out)
    elif _is_glob(target):
        base = _fixed(target)
        found = sorted(glob.iglob(target, recursive=True))
        if not found:
            raise SourceNotFoundError(f"Nothing matches {target}.")
        yield from (_named(path, base) for path in found if not _is_result(path, out))
    elif Path(target).is_dir():
        yield from _folder(target)
    elif Path(target).exists() or "%" in target or "#" in target:
        yield {"input": target}
    else:
        raise SourceNotFoundError(f"There is no file or folder {target}.")


def _task(number: int, row: Row | str) -> Task:
    if isinstance(row, str):
        return Task(number, "", f"row-{number + 1}", problem=row)
    source = row.get("input", "")
    name = row.get("output") or _stem(source)
    problem = ""
    if not source:
        problem = f"row {number + 1} of the inputs has no input"
    elif not _is_below(name):
        problem = f"the output {name} of {source} is not a name below the output folder"
    split = row.get("split_shots", "").lower()
    if split not in ("", *_YES_OR_NO):
        problem = f"split_shots of {source} is true or false, not {split}"
    return Task(
        number,
        source,
        name.removesuffix(".zarr"),
        row.get("prompts"),
        row.get("start"),
        row.get("end"),
        problem,
        _YES_OR_NO.get(split),
        options=tuple(f"{name}={row[name]}" for name in sorted(row) if "." in name),
    )


def _stem(source: str) -> str:
    """Name of a file by path or URL, without its suffix."""
    return (path_of(source) if is_url(source) else PurePosixPath(source)).stem


def _is_below(name: str) -> bool:
    path = PurePath(name)
    return bool(name) and not is_url(name) and ".." not in path.parts and not path.is_absolute()


def _beside(row: Row, folder: str) -> Row:
    """A manifest's row with its paths relative to the manifest's folder."""
    paths = {key: join(folder, row[key]) for key in ("input", "prompts") if key in row}
    return {**row, **paths}


def _named(path: str, base: str) -> Row:
    """A row whose output is named like the input below `base`."""
    below = os.path.relpath(path, base or ".")
    is_clip = PurePath(below).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return {"input": path, "output": os.path.splitext(below)[0] if is_clip else below}


def _folder(folder: str) -> Iterator[Row]:
    """The videos below a folder, and the folders of images, in order of their names."""
    empty = True
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not name.endswith(".zarr")
        )
        suffixes = {PurePath(name).suffix.lower() for name in files}
        for name in sorted(files):
            if PurePath(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                empty = False
                yield _named(os.path.join(place, name), folder)
        if suffixes & IMAGE_SUFFIXES and not suffixes & VIDEO_SUFFIXES:
            empty = False
            base = folder if place != folder else os.path.dirname(os.path.abspath(folder))
            yield {"input": place, "output": os.path.relpath(place, base)}
    if empty:
        raise SourceNotFoundError(f"The folder {folder} holds neither videos nor images.")


def _is_result(found: str, out: str | None) -> bool:
    """Whether a path or URL lies below the output."""
    if out is None or is_url(found) != is_url(out):
        return False
    if is_url(out):
        return found.startswith(f"{out.rstrip('/')}/")
    return Path(found).resolve().is_relative_to(Path(out).resolve())


def _urls(target: str, out: str | None) -> Iterator[Row]:
    if any(wildcard in target for wildcard in _WILDCARDS):
        base = _fixed(target)
        for url in find_urls(target):
            if not _is_result(url, out):
                yield {"input": url, "output": os.path.splitext(url[len(base) :].lstrip("/"))[0]}
        return
    if is_folder(target):
        pattern = join(target, "**/*.mp4")
        raise ConfigError(f"{target} is a folder: give a pattern, such as {pattern}")
    yield {"input": target}


def _is_glob(target: str) -> bool:
    return any(wildcard in target for wildcard in _WILDCARDS) and not Path(target).exists()


def _fixed(pattern: str) -> str:
    """The folder of a pattern before its first wildcard."""
    first = min(pattern.find(wildcard) for wildcard in _WILDCARDS if wildcard in pattern)
    return pattern[:first].rpartition("/")[0]
