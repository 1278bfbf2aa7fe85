"""COCO and LVIS images: their objects as examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.exports.coco_annotations import CocoAnnotations, CocoImage, CocoObject
from maskstream.pipeline.lab.evaluation.examples import (
    AnnotatedImage,
    BoolMap,
    Example,
    ImageSet,
    draw_objects,
    read_rgb,
    spread,
)
from maskstream.pipeline.lab.training.data import LabeledImage, is_held_out
from maskstream.pipeline.types import RgbImage, SizeHW


@dataclass(frozen=True, slots=True)
class CocoItem:
    """An annotated image: its file, and its objects that have a mask; crowds are apart."""

    file: Path
    image: CocoImage
    objects: tuple[CocoObject, ...]
    crowds: tuple[CocoObject, ...] = ()

    def size_hw(self) -> SizeHW:
        """Height and width as annotated, pixels."""
        return self.image.size_hw

    def load(self) -> Example:
        """Read the image and the masks of the evaluated objects. Raises `SourceError`."""
        rgb = self.read()
        height, width = self.image.size_hw
        masks = self._masks(self.objects)
        drawn = draw_objects(masks.sum((1, 2)), height * width, self.file)
        return Example(rgb, masks[drawn])

    def load_all(self) -> AnnotatedImage:
        """Read the image and all its objects, crowds included. Raises `SourceError`."""
        objects = self.objects + self.crowds
        masks = self._masks(objects)
        areas = [m.sum() if o.area is None else o.area for m, o in zip(masks, objects, strict=True)]
        return AnnotatedImage.of(self.read(), masks, np.array(areas, np.float64))

    def _masks(self, objects: Sequence[CocoObject]) -> BoolMap:
        height, width = self.image.size_hw
        masks = np.zeros((len(objects), height, width), bool)
        for mask, item in zip(masks, objects, strict=True):
            mask[:] = item.mask(self.image.size_hw)
        return masks

    def read(self) -> RgbImage:
        """Read only the image. Raises `SourceError`."""
        rgb = read_rgb(self.file)
        if rgb.shape[:2] != self.image.size_hw:
            (height, width), (h, w) = rgb.shape[:2], self.image.size_hw
            raise UnreadableSourceError(
                f"{self.file} is {width}x{height} pixels, its annotations are for {w}x{h}"
            )
        return rgb


def coco_images(
    annotations: CocoAnnotations,
    image_root: Path,
    *,
    held_out_percent: int = 0,
    images: int | None = None,
) -> list[CocoItem]:
    """The images below `image_root`; options as `find_label_maps`. Raises `SourceError`."""
    if not image_root.is_dir():
        raise SourceNotFoundError(f"there is no folder {image_root}")
    found = [
        CocoItem(
            _file(image_root, image),
            image,
            tuple(annotations.masked_objects(image)),
            tuple(annotations.crowds(image)),
        )
        for image in annotations.images
    ]
    if held_out_percent:
        found = [i for i in found if is_held_out(LabeledImage(i.file, i.file), held_out_percent)]
    return list(spread(found, images))


def as_image_set(items: Sequence[CocoItem], name: str) -> ImageSet:
    """Images as one source; those without objects are left out."""
    return ImageSet(name, tuple(item for item in items if item.objects or item.crowds))


def _file(image_root: Path, image: CocoImage) -> Path:
    """Path of an image: as annotated if that file exists, else by its file name alone."""
    file = image_root / image.path
    return file if file.is_file() else image_root / image.path.name
