"""Training data: folders of images with label maps, and COCO annotations (without torch).

Layout of a source: `<root>/<source>/images/*.jpg` with `masks/<stem>.png` (0 unlabeled, 1..N
objects; larger objects are painted first).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.exports.coco_annotations import CocoImage, CocoObject, load_coco
from maskstream.pipeline.lab.training.augment import Image, Labels

SHARE_ALIKE_SOURCES = frozenset({"oxford_pets_subset", "tuxpaint_stamps"})
"""Sources under CC BY-SA or the GPL, excluded from training (NOTICE names earlier use)."""

_CROP_SUFFIX = re.compile(r"_(scaled|crop)_\d+.*$")


class Item(Protocol):
    """An image with its objects."""

    @property
    def scene(self) -> str:
        """Name shared by crops of one photograph, so that a split keeps them together."""

    def load(self) -> tuple[Image, Labels]:
        """Read RGB uint8 [H, W, 3] and labels int32 [H, W]. Raises `TrainingDataError`."""


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """Paths of one image and its label map."""

    image: Path
    masks: Path

    @property
    def scene(self) -> str:
        """The file's name without the suffix that marks a crop."""
        return _CROP_SUFFIX.sub("", self.image.stem)

    def load(self) -> tuple[Image, Labels]:
        """Read the image and its label map."""
        image = read_rgb(self.image)
        labels = cv2.imread(str(self.masks), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.shape != image.shape[:2]:
            raise TrainingDataError(f"cannot read {self.masks}, or its size is not its image's")
        return image, np.asarray(labels, np.int32)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image of a COCO set with its objects, without crowds."""

    file: Path
    image: CocoImage
    objects: tuple[CocoObject, ...]

    @property
    def scene(self) -> str:
        """The file's name."""
        return self.file.stem

    def load(self) -> tuple[Image, Labels]:
        """Read the image and paint its objects' masks, larger ones first."""
        image = read_rgb(self.file)
        if image.shape[:2] != self.image.size_hw:
            raise TrainingDataError(f"{self.file} is not of the size that its annotations give")
        masks = [item.mask(self.image.size_hw) for item in self.objects]
        labels = np.zeros(self.image.size_hw, np.int32)
        for number, mask in enumerate(sorted(masks, key=lambda m: -int(m.sum())), 1):
            labels[mask] = number
        return image, labels


def read_rgb(file: Path) -> Image:
    """Read an image, RGB uint8 [H, W, 3]. Raises `TrainingDataError`."""
    bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if bgr is None:
        raise TrainingDataError(f"cannot read {file}")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True, slots=True)
class Source:
    """One data set: its training and its held-out images.

    whole: also use the union of all labels as an object (a dressed person made of garments).
    """

    name: str
    train: tuple[Item, ...]
    held_out: tuple[Item, ...]
    weight: float
    whole: bool = False


def is_held_out(item: Item, percent: int) -> bool:
    """Whether an image belongs to the held-out split; decided by a hash of its scene."""
    return zlib.crc32(item.scene.encode()) % 100 < percent


@dataclass(frozen=True, slots=True)
class CocoSet:
    """A COCO, LVIS or SA-1B style annotation file and the folder of its images."""

    annotations: Path
    images: Path

    def items(self) -> list[AnnotatedImage]:
        """The images that have objects. Raises `SourceError`."""
        found = load_coco(self.annotations)
        each = ((image, tuple(found.masked_objects(image))) for image in found.images)
        return [AnnotatedImage(self.images / i.path, i, objects) for i, objects in each if objects]


def labeled_images(folder: Path) -> list[LabeledImage]:
    """The images of a source's folder, without those under share-alike licenses."""
    if folder.name in SHARE_ALIKE_SOURCES:
        return []
    excluded = share_alike_images(folder)
    return [
        LabeledImage(image, folder / "masks" / f"{image.stem}.png")
        for image in sorted((folder / "images").glob("*"))
        if image.stem not in excluded
    ]


def share_alike_images(folder: Path) -> set[str]:
    """Stems of images under CC BY-SA, by the source's `attribution.json`."""
    file = folder / "attribution.json"
    if not file.is_file():
        return set()
    rows: dict[str, dict[str, str]] = json.loads(file.read_text())
    # "licence" is the spelling in the data.
    return {stem for stem, row in rows.items() if "BY-SA" in row["licence"]}


def cutouts(root: Path) -> list[Path]:
    """RGBA cut-outs below `root` that training may use (`<source>/cutouts/*.webp`)."""
    files = sorted(root.glob("*/cutouts/*.webp"))
    return [f for f in files if f.parent.parent.name not in SHARE_ALIKE_SOURCES]


def find_sources(
    root: Path | None,
    *,
    coco: Mapping[str, CocoSet] | None = None,
    weights: Mapping[str, float] | None = None,
    whole: Iterable[str] = (),
    excluded_sources: Iterable[str] = (),
    held_out_percent: int = 6,
) -> list[Source]:
    """Find the sources below `root` and the COCO sets by name.

    weights: factor on the square root of a source's image count (default 1). excluded_sources:
    sources whose images are all held out. Raises `TrainingDataError` if no source is found or an
    excluded one is unknown.
    """
    found: dict[str, list[Item]] = {}
    for folder in sorted(p for p in root.iterdir() if (p / "images").is_dir()) if root else ():
        found[folder.name] = list(labeled_images(folder))
    for name, annotated in (coco or {}).items():
        found[name] = list(annotated.items())
    found = {name: items for name, items in found.items() if items}
    if not found:
        raise TrainingDataError(f"no <source>/images folder below {root}")
    unknown = set(excluded_sources) - found.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise TrainingDataError(f"excluded_sources: there is no source {names}")
    sources = []
    for name, items in found.items():
        percent = 100 if name in excluded_sources else held_out_percent
        held_out = tuple(i for i in items if is_held_out(i, percent))
        train = tuple(i for i in items if not is_held_out(i, percent))
        weight = (weights or {}).get(name, 1.0) * len(train) ** 0.5
        sources.append(Source(name, train, held_out, weight, name in whole))
    return sources
