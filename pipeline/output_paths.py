"""Checks of output paths, made before anything is read or written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.errors import ConfigError, MaskstreamError, StoreError, StoreExistsError
from maskstream.pipeline.sources import is_pattern
from maskstream.pipeline.sources.images import ImageSequence

PathLike = Path | str | None


def check_outputs(outputs: Iterable[PathLike], inputs: Iterable[PathLike]) -> None:
    """Check that no output is an input, contains one or lies inside one, and that outputs differ.

    Links are followed; a pattern of image names stands for its files. None, URLs and inputs that do
    not exist are skipped.

    Raises:
        ConfigError: writing an output would replace or change an input or another output.
    """
    wanted = list(_local(outputs))
    given = [(path, file) for path in _local(inputs) for file in _files(path) if file.exists()]
    for output in wanted:
        for name, file in given:
            if relation := _relation(output, file):
                raise ConfigError(
                    f"The output {output} {relation} the input {name}: writing it would destroy "
                    "the input. Give another output."
                )
    for one, other in combinations(wanted, 2):
        if _relation(one, other):
            raise ConfigError(f"The outputs {one} and {other} overlap: give separate ones.")


def check_file(path: Path, what: str, *, replace: bool) -> None:
    """Check that a file can be written, creating its folder; `what` names it in messages.

    Raises:
        StoreExistsError: it exists and `replace` is false, or it is a folder.
        StoreError: it cannot be written.
    """
    if path.is_dir():
        raise StoreExistsError(f"The {what} {path} is a folder: give the name of a file.")
    if path.exists() and not replace:
        raise StoreExistsError(f"The {what} {path} exists already: replace it with --overwrite.")
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(None, "Permission denied")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"")
        part.unlink()
    except OSError as error:
        raise StoreError(
            f"The {what} {path} cannot be written: {error.strerror or error}."
        ) from error


def _local(paths: Iterable[PathLike]) -> Iterator[Path]:
    return (Path(path) for path in paths if path is not None and not is_url(str(path)))


def _files(path: Path) -> list[Path]:
    """The path itself; of a pattern of image names, its images."""
    if not is_pattern(path):
        return [path]
    try:
        return [file.path for file in ImageSequence(path).files()]
    except MaskstreamError:  # opening the source reports it
        return []


def _relation(output: Path, file: Path) -> str | None:
    """How an output overlaps with another file or folder."""
    if _same(output, file):
        return "is"
    if any(_same(output, folder) for folder in file.resolve().parents):
        return "contains"
    if any(_same(folder, file) for folder in output.resolve().parents):
        return "lies inside"
    return None


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are the same file, through links too."""
    try:
        return one.samefile(other)
    except OSError:  # one does not exist
        return one.resolve() == other.resolve()
