"""Where an export goes: nothing that was there is lost, nothing half-written looks finished."""

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
    """A place that was checked.

    path: the folder to write into, or the hidden file to write until `finish` gives it its name.
    kept: files of a broken-off export that were found to be what would be written.
    """

    place: Path
    path: Path
    resumed: bool = False
    kept: int = 0

    def put(self, name: str, data: bytes) -> None:
        """Write a file into the folder, whole or not at all. Raises `OSError`."""
        file = self.path / name
        if self.resumed and file.is_file() and file.read_bytes() == data:
            self.kept += 1
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(data)
        os.replace(part, file)

    def finish(self) -> None:
        """Everything is there and was read back. Raises `OSError`."""
        if self.path != self.place:
            os.replace(self.path, self.place)
        else:
            (self.place / MARKER).unlink()

    def abandon(self) -> None:
        """It did not get that far: a file goes, a folder with files stays to be gone on with."""
        if self.path != self.place:
            self.path.unlink(missing_ok=True)
        elif [file.name for file in self.place.glob("*")] == [MARKER]:
            (self.place / MARKER).unlink()


def open_output(
    place: Path, suffix: str, identity: Mapping[str, Any], *, overwrite: bool
) -> Output:
    """Check a place and begin: a file that ends in `suffix`, or a folder if that is empty.

    identity: what is exported and how, JSON values; a folder in which the same was begun and not
    finished is gone on with.

    Raises:
        ConfigError: the name does not fit the format.
        StoreExistsError: something is there already.
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
        raise StoreExistsError(f"{place} is there already: replace it with --overwrite.")
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
                f"The folder {place} holds something already: give another one, or replace files "
                "of the same names with --overwrite."
            )
        resumed = marker.read_text(encoding="utf-8") == identity
        if not resumed:
            raise StoreExistsError(
                f"Another export into {place} was broken off: finish it with its own options, give "
                "another folder, or replace files of the same names with --overwrite."
            )
    place.mkdir(parents=True, exist_ok=True)
    marker.write_text(identity, encoding="utf-8")
    return Output(place, place, resumed)
