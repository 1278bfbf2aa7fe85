"""Output of an export: existing files are safe, and partial files never look finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.store.header import is_store
from maskstream.pipeline.store.open_place import open_place

MARKER = ".export-unfinished.json"


@dataclass(slots=True)
class Output:
    """A checked output path.

    path: the folder to write into, or the hidden file that `finish` renames. kept: files of an
    interrupted export that already have the right content.
    """

    place: Path
    path: Path
    resumed: bool = False
    kept: int = 0

    def put(self, name: str, data: bytes) -> None:
        """Write a file into the folder atomically. Raises `OSError`."""
        file = self.path / name
        if self.resumed and file.is_file() and file.read_bytes() == data:
            self.kept += 1
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(data)
        os.replace(part, file)

    def finish(self) -> None:
        """Mark the output complete, after reading back. Raises `OSError`."""
        if self.path != self.place:
            os.replace(self.path, self.place)
        else:
            (self.place / MARKER).unlink()

    def abandon(self) -> None:
        """Abandon an incomplete output: delete a file; keep a folder with files to be continued."""
        if self.path != self.place:
            self.path.unlink(missing_ok=True)
        elif [file.name for file in self.place.glob("*")] == [MARKER]:
            (self.place / MARKER).unlink()


def open_output(
    place: Path, suffix: str, identity: Mapping[str, Any], *, overwrite: bool
) -> Output:
    """Check an output path and create it: a file with this suffix, or a folder if it is "".

    identity: content and options of the export, JSON values; an unfinished folder with the same
    identity is continued.

    Raises:
        ConfigError: the name does not fit the format.
        StoreExistsError: the output exists already.
        StoreError: it cannot be written.
    """
    try:
        if suffix:
            return _open_file(place, suffix, overwrite=overwrite)
        return _open_folder(place, json.dumps(identity, sort_keys=True), overwrite=overwrite)
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error.strerror or error}.") from error


def _open_file(place: Path, suffix: str, *, overwrite: bool) -> Output:
    if place.suffix.lower() != suffix:
        raise ConfigError(f"This format is one file: give a name that ends in {suffix}.")
    if place.is_dir():
        raise StoreExistsError(f"{place} is a folder; this format is one file: give another name.")
    if place.exists() and not overwrite:
        raise StoreExistsError(f"{place} exists already: replace it with --overwrite.")
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.stem}.part{place.suffix}")
    part.write_bytes(b"")
    return Output(place, part)


def _open_folder(place: Path, identity: str, *, overwrite: bool) -> Output:
    if place.exists() and not place.is_dir():
        raise StoreExistsError(f"{place} is a file; this format needs a folder: give another name.")
    if is_store(open_place(place)):
        raise StoreExistsError(f"{place} is a mask store: give another folder.")
    marker = place / MARKER
    resumed = False
    if not overwrite and place.is_dir() and any(place.iterdir()):
        if not marker.is_file():
            raise StoreExistsError(
                f"The folder {place} is not empty: give another one, or replace files "
                "of the same names with --overwrite."
            )
        resumed = marker.read_text(encoding="utf-8") == identity
        if not resumed:
            raise StoreExistsError(
                f"Another export into {place} was interrupted: continue it with the same options, "
                "give another folder, or replace files of the same names with --overwrite."
            )
    place.mkdir(parents=True, exist_ok=True)
    marker.write_text(identity, encoding="utf-8")
    return Output(place, place, resumed)
