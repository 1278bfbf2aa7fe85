"""Masks in annotation files: COCO, YouTube-VIS, MOTS, YOLO, LabelMe, CVAT, NumPy, OME-Zarr."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import yaml
import zarr
from zarr.errors import BaseZarrError

from maskstream.pipeline.errors import ConfigError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.exports.annotation_tools import cvat_mask, labelme_mask
from maskstream.pipeline.exports.coco_annotations import (
    CocoImage,
    CocoObject,
    check_list,
    read_json,
)
from maskstream.pipeline.exports.frames import UNNAMED, Mask
from maskstream.pipeline.exports.polygons import fill
from maskstream.pipeline.imports.found import FoundMask, ids_of_names
from maskstream.pipeline.imports.mask_folders import split_name
from maskstream.pipeline.types import SizeHW


@dataclass(frozen=True, slots=True)
class _Tracked(CocoObject):
    """A COCO annotation with a track id."""

    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Named:
    """A COCO category."""

    id: int
    name: str = ""


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
    category_id: int = 0


def coco_masks(file: Path) -> Iterator[FoundMask]:
    """Read objects from a COCO or YouTube-VIS JSON; frames are the numbers in image names.

    Raises:
        SourceError: it cannot be read, or does not identify objects across images.
    """
    values = read_json(file)
    kinds = {"videos", "images"} & values.keys() if isinstance(values, dict) else set()
    if not kinds or "annotations" not in values:
        raise UnreadableSourceError(f"{file} holds no COCO annotations: no images and annotations")
    named = check_list(_Named, values.get("categories", []), f"{file}: categories")
    names = {category.id: category.name for category in named}
    if "videos" in kinds:
        return _video_masks(values, names, file)
    return _image_masks(values, names, file)


def _image_masks(
    values: Mapping[str, Any], names: Mapping[int, str], file: Path
) -> Iterator[FoundMask]:
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
            number = split_name(file, image.path.name)[1]
            object_id = i if found.track_id is None else found.track_id
            yield FoundMask(number, object_id, mask, _given(names.get(found.category_id)))


def _video_masks(
    values: Mapping[str, Any], names: Mapping[int, str], file: Path
) -> Iterator[FoundMask]:
    videos = check_list(_Video, values["videos"], f"{file}: videos")
    tracks = check_list(_Track, values["annotations"], f"{file}: annotations")
    if len(videos) != 1:
        raise UnreadableSourceError(f"{file} has {len(videos)} videos; prompts are for one")
    (video,) = videos
    for row, name in enumerate(video.file_names):
        number = split_name(file, name)[1]
        for track in tracks:
            segmentation = track.segmentations[row] if row < len(track.segmentations) else None
            if segmentation:
                mask = CocoObject(track.id, 0, segmentation=segmentation).mask(
                    (video.height, video.width)
                )
                yield FoundMask(number, track.id, mask, _given(names.get(track.category_id)))


def mots_masks(file: Path) -> Iterator[FoundMask]:
    """Read objects from MOTS text. Raises `SourceError`, also for MOTChallenge's boxes."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSourceError(f"{file} cannot be read as text") from error
    for row, line in enumerate(filter(None, lines), start=1):
        fields = line.split(" ", 5)
        if len(fields) < 6 or not all(field.isdecimal() for field in fields[:5]):
            boxes = ", but of boxes (MOTChallenge)" if line.count(",") > 4 else ""
            raise UnreadableSourceError(f"{file}: line {row} is not one of MOTS{boxes}")
        frame, object_id, _, height, width = (int(field) for field in fields[:5])
        rle = {"size": [height, width], "counts": fields[5]}
        yield FoundMask(frame, object_id, CocoObject(0, 0, segmentation=rle).mask((height, width)))


def yolo_masks(folder: Path, size_hw: SizeHW | None) -> Iterator[FoundMask]:
    """Read YOLO polygons: `labels/*.txt`, named by frame number. All of a class are one object.

    size_hw: of the images; None: of those in the folder `images`.

    Raises:
        SourceError: a file cannot be read.
        ConfigError: the size of the images is not known.
    """
    try:
        document = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
        names = document["names"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        names = {}
    known = dict(enumerate(names)) if isinstance(names, list) else dict(names)
    size_hw = size_hw or _image_size(folder / "images")
    for file in sorted((folder / "labels").rglob("*.txt")):
        number = split_name(file, file.name)[1]
        masks: dict[int, Mask] = {}
        for line in filter(None, file.read_text(encoding="utf-8").splitlines()):
            kind, polygon = _yolo_polygon(file, line, size_hw)
            drawn = fill(polygon, size_hw)
            masks[kind] = masks.get(kind, np.zeros(size_hw, np.bool_)) | drawn
        for kind, mask in masks.items():
            yield FoundMask(number, kind + 1, mask, _given(known.get(kind)))


def _yolo_polygon(file: Path, line: str, size_hw: SizeHW) -> tuple[int, Any]:
    try:
        kind, *shares = line.split()
        points = np.array(shares, np.float64).reshape(-1, 2)
        if len(points) < 3:
            raise ValueError
        return int(kind), np.asarray(points * (size_hw[1], size_hw[0]), np.int32)
    except ValueError as error:
        raise UnreadableSourceError(f"{file}: not a YOLO polygon: {line[:60]}") from error


def _image_size(folder: Path) -> SizeHW:
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        image = cv2.imread(str(file))
        if image is not None:
            return image.shape[0], image.shape[1]
    raise ConfigError(
        "YOLO polygons are shares of the image's size, which is not known: give the video with "
        "--source"
    )


def labelme_masks(folder: Path) -> Iterator[FoundMask]:
    """Read LabelMe JSON, a file a frame: masks and polygons; `group_id` identifies the object.

    Raises `SourceError`.
    """
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
    documents = [(file, read_json(file)) for file in files]
    labels = {
        str(shape.get("label"))
        for _, document in documents
        for shape in document.get("shapes", ())
        if shape.get("group_id") is None
    }
    ids = ids_of_names(sorted(labels))
    for file, document in documents:
        number = split_name(file, file.name)[1]
        for shape in document.get("shapes", ()):
            try:
                size_hw = int(document["imageHeight"]), int(document["imageWidth"])
                mask = _labelme_mask(shape, size_hw)
                group = shape.get("group_id")
                label = str(shape.get("label"))
                object_id = ids[label] if group is None else int(group)
            except (KeyError, TypeError, ValueError, cv2.error) as error:
                raise UnreadableSourceError(f"{file}: a shape is malformed ({error!r})") from error
            if mask is not None and mask.any():
                yield FoundMask(number, object_id, mask, _given(label))


def _labelme_mask(shape: Mapping[str, Any], size_hw: SizeHW) -> Mask | None:
    kind = shape.get("shape_type", "polygon")
    if kind == "polygon":
        return fill(np.rint(np.array(shape["points"], np.float64)).astype(np.int32), size_hw)
    return labelme_mask(shape, size_hw) if kind == "mask" else None


def cvat_masks(file: Path) -> Iterator[FoundMask]:
    """Read masks of CVAT for video 1.1; `group_id`, or else the label, identifies the object.

    Raises `SourceError`.
    """
    ids: dict[str, int] = {}
    size_hw: SizeHW | None = None
    try:
        for _, element in ElementTree.iterparse(file):  # noqa: S314
            if element.tag == "original_size":
                found = {part.tag: int(part.text or 0) for part in element}
                size_hw = found["height"], found["width"]
            if element.tag != "track" or size_hw is None:
                continue
            label = element.attrib.get("label", "")
            group = int(element.attrib.get("group_id") or 0)
            object_id = group or ids.setdefault(label, len(ids) + 1)
            name = "" if label == f"object_{object_id}" else _given(label)
            for shape in element.iter("mask"):
                if shape.attrib.get("outside") != "1":
                    mask = cvat_mask(shape.attrib, size_hw)
                    yield FoundMask(int(shape.attrib["frame"]), object_id, mask, name)
            element.clear()
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise UnreadableSourceError(f"{file} is not CVAT for video 1.1 ({error})") from error


def npz_masks(file: Path) -> Iterator[FoundMask]:
    """Read label maps `masks` [T, H, W] of a NumPy archive, with `frames` and names if it has them.

    Raises `SourceError`.
    """
    try:
        with np.load(file) as archive:
            masks = archive["masks"] if "masks" in archive else archive[archive.files[0]]
            frames = archive["frames"] if "frames" in archive else np.arange(len(masks))
            names = {}
            if {"object_ids", "object_names"} <= set(archive.files):
                pairs = zip(archive["object_ids"], archive["object_names"], strict=True)
                names = {int(object_id): str(name) for object_id, name in pairs}
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no file {file}") from error
    except (OSError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableSourceError(f"{file} is no NumPy archive of masks ({error})") from error
    if masks.ndim != 3:
        raise UnreadableSourceError(f"{file}: masks are {list(masks.shape)}, not [T, H, W]")
    for frame, labels in zip(frames.tolist(), masks, strict=False):
        yield from _of_labels(int(frame), labels, names)


def ome_zarr_masks(folder: Path) -> Iterator[FoundMask]:
    """Read label maps [T, H, W] of an OME-Zarr image. Raises `SourceError`."""
    try:
        group = zarr.open_group(folder, mode="r")
        about: Any = group.attrs.get("maskstream", {})
        array: Any = group["0"]
        names = {int(key): str(name) for key, name in about.get("objects", {}).items()}
        frames = about.get("frames", range(array.shape[0]))
        for row, frame in enumerate(frames):
            yield from _of_labels(int(frame), np.asarray(array[row]), names)
    except (BaseZarrError, OSError, KeyError, ValueError, AttributeError) as error:
        raise UnreadableSourceError(f"{folder} is no OME-Zarr image of masks ({error})") from error


def _of_labels(frame: int, labels: Any, names: Mapping[int, str]) -> Iterator[FoundMask]:
    for object_id in np.unique(labels).tolist():
        if object_id:
            mask = np.asarray(labels == object_id, np.bool_)
            yield FoundMask(frame, int(object_id), mask, names.get(object_id, ""))


def _given(name: object) -> str:
    """The name of an object by its category; exports call unnamed ones `object`."""
    return "" if name in (None, UNNAMED) else str(name)


def kind_of_json(file: Path) -> str:
    """Whether a JSON file is of "coco" or "labelme". Raises `SourceError`."""
    values = read_json(file)
    return "labelme" if isinstance(values, dict) and "shapes" in values else "coco"


def is_json_folder(folder: Path) -> bool:
    """Whether a folder holds LabelMe files."""
    first = next(folder.rglob("*.json"), None)
    if first is None:
        return False
    try:
        return "shapes" in json.loads(first.read_bytes())
    except (OSError, ValueError):
        return False
