"""Import of masks from other programs as prompts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.errors import (
    ConfigError,
    SourceNotFoundError,
    StoreError,
    StoreExistsError,
    UnreadableSourceError,
)
from maskstream.pipeline.exports.coco_annotations import (
    CocoImage,
    CocoObject,
    check_list,
    read_json,
)
from maskstream.pipeline.exports.frames import Mask
from maskstream.pipeline.exports.png import encode_png
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.output_paths import check_outputs
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.sources.labelmaps import read_label_map

_VOID = 255  # "not labeled" in DAVIS
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True, slots=True)
class FoundMask:
    """An imported mask of an object on a frame, bool [H, W]."""

    frame: int
    object_id: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class ImportCount:
    """Counts of an import."""

    masks: int
    objects: int
    frames: int


@dataclass(frozen=True, slots=True)
class _Tracked(CocoObject):
    """A COCO annotation with a track id."""

    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Video:
    """A video in a YouTube-VIS JSON."""

    id: int
    height: int
    width: int
    file_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Track:
    """An annotation in a YouTube-VIS JSON: a segmentation or null for each frame."""

    id: int
    video_id: int
    segmentations: tuple[Any, ...]


def import_as_prompts(
    place: Path,
    prompts: Path,
    format_name: str | None = None,
    *,
    stride: int = 1,
    overwrite: bool = False,
) -> ImportCount:
    """Write a prompts JSON and, in a folder beside it, a PNG per mask of every `stride`-th frame.

    Raises:
        ConfigError: the format is unknown, or the prompts would replace the masks.
        SourceError: the masks cannot be read.
        StoreExistsError: the prompts, or their folder, exist already.
        StoreError: they cannot be written.
    """
    masks = _reader(place, format_name)
    folder = prompts.with_name(f"{prompts.stem}_masks")
    check_outputs([prompts, folder], [place])
    try:
        if not overwrite and (prompts.exists() or folder.exists()):
            existing = prompts if prompts.exists() else folder
            raise StoreExistsError(f"{existing} exists already: replace it with --overwrite.")
        folder.mkdir(parents=True, exist_ok=True)
        order: dict[int, int] = {}
        events = [
            _write(found, folder)
            for found in masks
            if order.setdefault(found.frame, len(order)) % stride == 0
        ]
        if not events:
            raise UnreadableSourceError(f"{place} contains no object masks")
        document = {"version": 1, "events": events}
        part = prompts.with_name(f".{prompts.name}.part")
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")
        os.replace(part, prompts)
    except OSError as error:
        raise StoreError(f"{prompts} cannot be written: {error.strerror or error}.") from error
    objects, frames = ({event[key] for event in events} for key in ("object", "frame"))
    return ImportCount(len(events), len(objects), len(frames))


def _reader(place: Path, format_name: str | None) -> Iterator[FoundMask]:
    name = format_name or ("coco" if place.suffix.lower() == ".json" else "png")
    if name == "coco":
        return coco_masks(place)
    if name == "matte":
        return matte_masks(place)
    if name in ("davis", "png"):
        return label_masks(place, void=_VOID if name == "davis" else None)
    raise ConfigError(f"There is no format {name!r} to import; there are davis, png, matte, coco.")


def _write(found: FoundMask, folder: Path) -> JsonObject:
    if not 1 <= found.object_id <= MAX_OBJECT_ID:
        raise UnreadableSourceError(
            f"object {found.object_id} on frame {found.frame}: object ids range from 1 to "
            f"{MAX_OBJECT_ID}"
        )
    file = folder / f"{found.frame:06d}_{found.object_id}.png"
    file.write_bytes(encode_png(np.where(found.mask, np.uint8(255), np.uint8(0))))
    return {
        "frame": found.frame,
        "type": "mask",
        "object": found.object_id,
        "mask": f"{folder.name}/{file.name}",
    }


def label_masks(folder: Path, *, void: int | None = None) -> Iterator[FoundMask]:
    """Read objects from label maps named by frame number. Raises `SourceError`."""
    for number, file in sorted(_numbered(folder).items()):
        labels = read_label_map(file)
        for object_id in np.unique(labels).tolist():
            if object_id not in (0, void):
                yield FoundMask(number, object_id, labels == object_id)


def matte_masks(folder: Path) -> Iterator[FoundMask]:
    """Read objects from mattes, one a file: pixels above half of the maximum are the object.

    Files whose names differ only in the frame number are one object. Its id is the last number in
    the rest of the name (`clip_3_000012.png`), else the first free one.

    Raises:
        SourceError: there are no such files, or one is not an image.
    """
    names = sorted(str(file.relative_to(folder)) for file in _images(folder))
    by_prefix: dict[str, list[tuple[int, Path]]] = {}
    for name in names:
        prefix, number = _split(folder / name, name)
        by_prefix.setdefault(prefix, []).append((number, folder / name))
    ids = _ids(list(by_prefix))
    found = sorted((n, ids[p], f) for p, files in by_prefix.items() for n, f in files)
    for number, object_id, file in found:
        values = read_label_map(file)
        white = (1 << 8) - 1 if values.max() < 1 << 8 else (1 << 16) - 1
        mask = values > white // 2
        if mask.any():
            yield FoundMask(number, object_id, mask)


def coco_masks(file: Path) -> Iterator[FoundMask]:
    """Read objects from a COCO or YouTube-VIS JSON; frames are the numbers in image names.

    Raises:
        SourceError: it cannot be read, or does not identify objects across images.
    """
    values = read_json(file)
    kinds = {"videos", "images"} & values.keys() if isinstance(values, dict) else set()
    if not kinds or "annotations" not in values:
        raise UnreadableSourceError(f"{file} holds no COCO annotations: no images and annotations")
    return _video_masks(values, file) if "videos" in kinds else _image_masks(values, file)


def _image_masks(values: Mapping[str, Any], file: Path) -> Iterator[FoundMask]:
    images = {i.id: i for i in check_list(CocoImage, values["images"], f"{file}: images")}
    objects = check_list(_Tracked, values["annotations"], f"{file}: annotations")
    wanted = [o for o in objects if o.segmentation and not o.iscrowd]
    alone = len({o.image_id for o in wanted}) < 2
    for i, found in enumerate(wanted, start=1):
        image = images.get(found.image_id)
        if image is None:
            raise UnreadableSourceError(f"{file}: annotation {found.id} refers to an unknown image")
        if found.track_id is None and not alone:
            raise UnreadableSourceError(
                f"{file}: annotation {found.id} has no track_id, which identifies an object on "
                "several images; give a file with a single image"
            )
        mask = found.mask(image.size_hw)
        if mask.any():
            number = _split(file, image.path.name)[1]
            yield FoundMask(number, i if found.track_id is None else found.track_id, mask)


def _video_masks(values: Mapping[str, Any], file: Path) -> Iterator[FoundMask]:
    videos = check_list(_Video, values["videos"], f"{file}: videos")
    tracks = check_list(_Track, values["annotations"], f"{file}: annotations")
    if len(videos) != 1:
        raise UnreadableSourceError(f"{file} has {len(videos)} videos; prompts are for one")
    (video,) = videos
    for row, name in enumerate(video.file_names):
        number = _split(file, name)[1]
        for track in tracks:
            segmentation = track.segmentations[row] if row < len(track.segmentations) else None
            if segmentation:
                found = CocoObject(track.id, 0, segmentation=segmentation)
                yield FoundMask(number, track.id, found.mask((video.height, video.width)))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceNotFoundError(f"there is no folder {folder}")
    files = [file for file in folder.rglob("*.png") if not file.name.startswith(".")]
    if not files:
        raise SourceNotFoundError(f"there is no PNG file in {folder}")
    return files


def _numbered(folder: Path) -> dict[int, Path]:
    files: dict[int, Path] = {}
    for file in sorted(_images(folder)):
        _, number = _split(file, file.name)
        if number in files:
            raise UnreadableSourceError(
                f"{files[number]} and {file} are of the same frame; for black-and-white images of "
                "several objects use --format matte"
            )
        files[number] = file
    return files


def _split(file: Path, name: str) -> tuple[str, int]:
    """Split a name without suffix into the part before the frame number, and the number."""
    found = _NUMBERED.fullmatch(str(Path(name).with_suffix("")))
    if found is None:
        raise UnreadableSourceError(
            f"{file}: the name {name} does not end in a frame number, like 00012.png"
        )
    return found["prefix"], int(found["number"])


def _ids(prefixes: list[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for prefix in prefixes:
        number = _LAST_NUMBER.search(prefix)
        wanted = int(number[1]) if number else 0
        free = next(i for i in range(1, len(prefixes) + 1) if i not in ids.values())
        ids[prefix] = wanted if wanted and wanted not in ids.values() else free
    return ids
