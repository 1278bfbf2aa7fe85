"""Masks in images: label maps a frame, or mattes an object and frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Literal

import numpy as np

from maskstream.pipeline.errors import ConfigError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.imports.found import FoundMask, Specks, ids_of_names
from maskstream.pipeline.sources.images import SUFFIXES
from maskstream.pipeline.sources.mask_images import MaskImage, Meaning, read_mask_image

_VOID = 255  # "not labeled" in DAVIS
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)")
_ANNOTATIONS = "Annotations"  # folder of the label maps in DAVIS and YouTube-VOS
_LAYER_ALPHA = ".A"  # channel of a layer in OpenEXR
_SAMPLES = 8  # images read to find out what their values mean

ImageFormat = Literal["davis", "png", "matte"]


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Images of masks by the part of their names before the frame number, then by frame."""

    place: Path
    by_prefix: Mapping[str, Mapping[int, Path]]

    @property
    def is_per_object(self) -> bool:
        """Whether a frame has several images, one for each object."""
        frames = [frame for files in self.by_prefix.values() for frame in files]
        return len(frames) > len(set(frames))

    def in_order(self) -> list[tuple[int, str, Path]]:
        """Frame, prefix and file of every image, by frame."""
        return sorted(
            (frame, prefix, file)
            for prefix, files in self.by_prefix.items()
            for frame, file in files.items()
        )


def image_masks(place: Path, form: ImageFormat | None, specks: Specks) -> Iterator[FoundMask]:
    """Read objects from an image, or from the images of a folder, named by frame number.

    form: "png": label maps, values or colors are objects; "davis": 255 is void; "matte": each image
    is one object, those whose names differ only in the frame number are the same one, named by its
    folder or by the rest of its files' names. None: by what the images hold.

    Raises:
        SourceError: there are no images, or one cannot be read.
        ConfigError: the values may be label maps as well as mattes.
    """
    images = _list_images(place)
    in_order = images.in_order()
    if in_order[0][2].suffix.lower() == ".exr" and form is None:
        return _exr_masks(in_order, specks)
    if form is None:
        meaning = _meaning_of(images)
        form = "matte" if meaning == "matte" else "png"
        void = _VOID if _ANNOTATIONS in place.parts or (place / _ANNOTATIONS).is_dir() else None
    else:
        void = _VOID if form == "davis" else None
    if form == "matte":
        return _mattes(images, specks)
    if images.is_per_object:
        (frame, _, one), (_, _, other) = _same_frame(in_order)
        raise UnreadableSourceError(
            f"{one} and {other} are label maps of the same frame {frame}; give the folder of one "
            "sequence, or --format matte for black-and-white images of several objects"
        )
    return _label_maps(in_order, void, form == "png")


def _list_images(place: Path) -> _Numbered:
    if place.is_file():
        numbered = _NUMBERED.fullmatch(place.stem)
        return _Numbered(place, {"": {int(numbered["number"]) if numbered else 0: place}})
    if not place.is_dir():
        raise SourceNotFoundError(f"there is no file or folder {place}")
    root = place / _ANNOTATIONS if (place / _ANNOTATIONS).is_dir() else place
    files = [
        file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and not file.name.startswith((".", "._"))
        and file.is_file()
    ]
    if not files:
        raise SourceNotFoundError(
            f"there is no image in {place}; masks are PNG, JPEG, TIFF or other images"
        )
    by_prefix: dict[str, dict[int, Path]] = {}
    for file in files:
        prefix, number = split_name(file, str(file.relative_to(root)))
        by_prefix.setdefault(prefix, {})[number] = file
    return _Numbered(place, by_prefix)


def split_name(file: Path, name: str) -> tuple[str, int]:
    """Split a name without suffix into the part before the frame number, and the number.

    Raises `UnreadableSourceError` if there is no number.
    """
    found = _NUMBERED.fullmatch(str(Path(name).with_suffix("")))
    if found is None:
        raise UnreadableSourceError(
            f"{file}: the name {name} does not end in a frame number, like 00012.png"
        )
    return found["prefix"], int(found["number"])


def _meaning_of(images: _Numbered) -> Meaning:
    """What the values of the images are, by a sample of them."""
    files = [file for _, _, file in images.in_order()]
    chosen = np.unique(np.linspace(0, len(files) - 1, _SAMPLES).round().astype(int))
    sample = [read_mask_image(files[row]) for row in chosen]
    for image in sample:
        if image.values is None and image.alpha is None and image.meaning == "matte":
            raise UnreadableSourceError(
                f"{image.file} has too many colors for masks; is it a picture of the video? Give "
                "label maps, mattes or images with alpha, or --format matte to take its brightness"
            )
    found = {image.meaning for image in sample if image.opacity.any()}
    if "both" in found or found == {"labels", "matte"}:
        raise ConfigError(
            f"the images of {images.place} may be label maps or mattes: give --format png (each "
            "value is an object) or --format matte (each image is an object, white is opaque)"
        )
    if images.is_per_object:
        return "matte"
    return found.pop() if found else "labels"


def _same_frame(
    in_order: Sequence[tuple[int, str, Path]],
) -> tuple[tuple[int, str, Path], tuple[int, str, Path]]:
    return next(pair for pair in pairwise(in_order) if pair[0][0] == pair[1][0])


def _label_maps(
    in_order: Sequence[tuple[int, str, Path]], void: int | None, by_color: bool
) -> Iterator[FoundMask]:
    """An object for each value, or for each color in the order of their appearance."""
    colors: dict[int, int] = {0: 0}
    for frame, _, file in in_order:
        image = read_mask_image(file)
        labels = image.values if image.values is not None else None
        if labels is None:
            if not by_color:
                raise UnreadableSourceError(
                    f"{file} is a color image; DAVIS' label maps are indexed or gray"
                )
            labels = _color_labels(image, colors)
        skipped = {0, _VOID if image.indexed else void, void}
        for object_id in np.unique(labels).tolist():
            if object_id not in skipped:
                yield FoundMask(frame, object_id, np.asarray(labels == object_id, np.bool_))


def _color_labels(image: MaskImage, colors: dict[int, int]) -> np.ndarray:
    """Labels of a color image; new colors get the next numbers."""
    for color in image.colors.tolist():
        colors.setdefault(color, len(colors))
    known = np.array(sorted(colors), np.uint32)
    numbers = np.array([colors[color] for color in known.tolist()], np.uint16)
    return np.asarray(numbers[np.searchsorted(known, image.packed)])


def _mattes(images: _Numbered, specks: Specks) -> Iterator[FoundMask]:
    names = _object_names(list(images.by_prefix))
    ids = ids_of_names(names.values())
    for frame, prefix, file in images.in_order():
        image = read_mask_image(file)
        name = names[prefix]
        given = "" if name == str(ids[name]) else name
        mask = np.asarray(image.opacity > 0.5, np.bool_)
        found = FoundMask(frame, ids[name], mask, given)
        if image.is_noisy:
            yield from specks.without([found])
        elif mask.any():
            yield found


def _object_names(prefixes: list[str]) -> dict[str, str]:
    """Names of objects: their folders', or what differs in their files' names."""
    if len(prefixes) == 1:
        folder = os.path.dirname(prefixes[0])
        return {prefixes[0]: os.path.basename(folder)}
    pairs = zip(min(prefixes), max(prefixes), strict=False)
    same = takewhile(lambda pair: pair[0] == pair[1], pairs)
    shared = "".join(letter for letter, _ in same)
    shared = shared[: 1 + max(shared.rfind(mark) for mark in ("/", "_", "-", "."))]
    return {prefix: prefix[len(shared) :].strip("/_-. ") or prefix for prefix in prefixes}


def _exr_masks(in_order: Sequence[tuple[int, str, Path]], specks: Specks) -> Iterator[FoundMask]:
    """Alpha channels of OpenEXR: of each layer, or else of the image."""
    from maskstream.pipeline.sources.film_images import read_film_layers

    ids: dict[str, int] = {}
    for frame, _, file in in_order:
        channels = read_film_layers(file)
        if channels is None:
            raise UnreadableSourceError(f"{file} cannot be decoded as an image")
        layers = {
            name.removesuffix(_LAYER_ALPHA): pixels
            for name, pixels in channels.items()
            if name.endswith(_LAYER_ALPHA)
        }
        if not layers:
            alone = channels.get("A", next(iter(channels.values())))
            layers = {"": alone}
        if not ids.keys() >= layers.keys():
            ids = dict(ids_of_names({**ids, **dict.fromkeys(layers, 0)}))
        for layer, pixels in layers.items():
            name = "" if layer == str(ids[layer]) else layer
            mask = np.asarray(pixels > 0.5, np.bool_)
            noisy = bool(((pixels > 0) & (pixels < 1)).any())
            found = [FoundMask(frame, ids[layer], mask, name)]
            yield from specks.without(found) if noisy else (f for f in found if f.mask.any())
