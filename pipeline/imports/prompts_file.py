"""Import of masks made elsewhere as prompts: a prompts JSON, and a PNG per mask beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import (
    ConfigError,
    SourceNotFoundError,
    StoreError,
    StoreExistsError,
    UnreadableSourceError,
)
from maskstream.pipeline.exports.png import encode_png
from maskstream.pipeline.imports.annotations import (
    coco_masks,
    cvat_masks,
    is_json_folder,
    kind_of_json,
    labelme_masks,
    mots_masks,
    npz_masks,
    ome_zarr_masks,
    yolo_masks,
)
from maskstream.pipeline.imports.found import SPECK_PX, FoundMask, Specks
from maskstream.pipeline.imports.mask_folders import image_masks
from maskstream.pipeline.imports.mask_videos import video_masks
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.output_paths import check_outputs
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.images import SUFFIXES as IMAGE_SUFFIXES
from maskstream.pipeline.types import SizeHW


@dataclass(frozen=True, slots=True)
class ImportChoice:
    """Options of an import, as a user gives them.

    format: of the masks, None: found out. stride: take every n-th frame that has masks. offset:
    added to every frame number. specks: smaller parts of noisy mattes are dropped, pixels. source:
    the video, for formats that do not state its size.
    """

    format: str | None = None
    stride: int = 1
    offset: int = 0
    specks: int = SPECK_PX
    source: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class ImportCount:
    """Counts of an import. specks: parts that were dropped, and on how many frames."""

    masks: int
    objects: int
    frames: int
    specks: int = 0
    speck_frames: int = 0


_Reader = Callable[[Path, ImportChoice, Specks], Iterator[FoundMask]]

_READERS: Mapping[str, _Reader] = {
    "davis": lambda place, _, specks: image_masks(place, "davis", specks),
    "png": lambda place, _, specks: image_masks(place, "png", specks),
    "matte": lambda place, _, specks: (
        video_masks(place, specks) if _is_video(place) else image_masks(place, "matte", specks)
    ),
    "video": lambda place, _, specks: video_masks(place, specks),
    "coco": lambda place, _, __: coco_masks(place),
    "mots": lambda place, _, __: mots_masks(place),
    "yolo-seg": lambda place, choice, _: yolo_masks(place, _size_of(choice.source)),
    "labelme": lambda place, _, __: labelme_masks(place),
    "cvat": lambda place, _, __: cvat_masks(place),
    "npz": lambda place, _, __: npz_masks(place),
    "ome-zarr": lambda place, _, __: ome_zarr_masks(place),
}
_BY_SUFFIX = {".txt": "mots", ".xml": "cvat", ".npz": "npz", ".zarr": "ome-zarr"}


def import_as_prompts(
    place: Path, prompts: Path, choice: ImportChoice | None = None
) -> ImportCount:
    """Write a prompts JSON, and in a folder beside it a PNG per mask.

    Raises:
        ConfigError: the format is unknown or must be given, or the prompts would replace the masks.
        SourceError: the masks cannot be read.
        StoreExistsError: the prompts, or their folder, exist already.
        StoreError: they cannot be written.
    """
    choice = choice or ImportChoice()
    specks = Specks(choice.specks)
    folder = prompts.with_name(f"{prompts.stem}_masks")
    check_outputs([prompts, folder], [place, choice.source])
    masks = _masks(place, choice, specks)
    try:
        if not choice.overwrite and (prompts.exists() or folder.exists()):
            existing = prompts if prompts.exists() else folder
            raise StoreExistsError(f"{existing} exists already: replace it with --overwrite.")
        first = next(masks, None)
        if first is None:
            raise UnreadableSourceError(f"{place} contains no object masks")
        folder.mkdir(parents=True, exist_ok=True)
        events = [_write(first, folder), *(_write(found, folder) for found in masks)]
        names = _renames(events)
        document = {"version": 1, "events": [*names, *(event for event, _ in events)]}
        part = prompts.with_name(f".{prompts.name}.part")
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")
        os.replace(part, prompts)
    except OSError as error:
        raise StoreError(f"{prompts} cannot be written: {error.strerror or error}.") from error
    objects, frames = ({event[key] for event, _ in events} for key in ("object", "frame"))
    count = len(events), len(objects), len(frames)
    return ImportCount(*count, specks.dropped, len(specks.frames))


def _masks(place: Path, choice: ImportChoice, specks: Specks) -> Iterator[FoundMask]:
    """The masks of every n-th frame that has some."""
    order: dict[int, int] = {}
    for found in _reader(place, choice.format)(place, choice, specks):
        if order.setdefault(found.frame, len(order)) % choice.stride == 0:
            yield replace(found, frame=found.frame + choice.offset)


def _reader(place: Path, name: str | None) -> _Reader:
    if name is not None and name not in _READERS:
        raise ConfigError(
            f"There is no format {name!r} to import; there are {', '.join(_READERS)}."
        )
    if not place.exists():
        raise SourceNotFoundError(f"there is no file or folder {place}")
    if name is None:
        name = _format_of(place)
    return _READERS[name] if name else lambda where, _, specks: image_masks(where, None, specks)


def _format_of(place: Path) -> str | None:
    """The format of a file or folder by its name and contents; None for images."""
    suffix = place.suffix.lower()
    if place.is_dir():
        if (place / "zarr.json").is_file() or (place / ".zgroup").is_file():
            return "ome-zarr"
        if (place / "labels").is_dir() and (place / "data.yaml").is_file():
            return "yolo-seg"
        return "labelme" if is_json_folder(place) else None
    if suffix == ".json":
        return kind_of_json(place)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    return None if suffix in IMAGE_SUFFIXES else "video"


def _is_video(place: Path) -> bool:
    return place.is_file() and place.suffix.lower() not in IMAGE_SUFFIXES


def _size_of(source: Path | None) -> SizeHW | None:
    if source is None:
        return None
    with open_source(source).open() as reader:
        return reader.info.size_hw


def _write(found: FoundMask, folder: Path) -> tuple[JsonObject, str]:
    """Write a mask; returns its event, and the object's name."""
    if not 1 <= found.object_id <= MAX_OBJECT_ID:
        raise UnreadableSourceError(
            f"object {found.object_id} on frame {found.frame}: object ids range from 1 to "
            f"{MAX_OBJECT_ID}"
        )
    if found.frame < 0:
        raise ConfigError("The frame offset makes frame numbers negative.")
    file = folder / f"{found.frame:06d}_{found.object_id}.png"
    file.write_bytes(encode_png(np.where(found.mask, np.uint8(255), np.uint8(0))))
    event: JsonObject = {
        "frame": found.frame,
        "type": "mask",
        "object": found.object_id,
        "mask": f"{folder.name}/{file.name}",
    }
    return event, found.name


def _renames(events: list[tuple[JsonObject, str]]) -> list[JsonObject]:
    """An event for the name of each named object, on its first frame."""
    names: dict[object, JsonObject] = {}
    for event, name in events:
        if name and event["object"] not in names:
            about: JsonObject = {"frame": event["frame"], "type": "rename"}
            names[event["object"]] = about | {"object": event["object"], "name": name}
    return list(names.values())
