"""Folders of images with label maps: `<root>/<source>/images/*`, `<root>/<source>/masks/*.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.lab.evaluation.examples import (
    AnnotatedImage,
    Example,
    ImageSet,
    draw_objects,
    read_rgb,
    spread,
)
from maskstream.pipeline.lab.training.data import LabeledImage, is_held_out
from maskstream.pipeline.sources.images import SUFFIXES
from maskstream.pipeline.sources.mask_images import read_label_map
from maskstream.pipeline.types import LabelMap, RgbImage, SizeHW


@dataclass(frozen=True, slots=True)
class LabelMapItem:
    """An image with a label map of the same size: 0 is background, else the object's id."""

    paths: LabeledImage

    def size_hw(self) -> SizeHW:
        """Height and width of the label map, pixels. Raises `SourceError`."""
        height, width = read_label_map(self.paths.masks).shape
        return height, width

    def load(self) -> Example:
        """Read the image and its label map. Raises `SourceError`."""
        rgb, labels, ids, areas = self._read()
        drawn = ids[draw_objects(areas, labels.size, self.paths.image)]
        return Example(rgb, labels[None] == drawn[:, None, None])

    def load_all(self) -> AnnotatedImage:
        """Read the image and all objects of its label map. Raises `SourceError`."""
        rgb, labels, ids, areas = self._read()
        return AnnotatedImage(rgb, labels[None] == ids[:, None, None], areas.astype(np.float64))

    def _read(
        self,
    ) -> tuple[RgbImage, LabelMap, npt.NDArray[np.uint16], npt.NDArray[np.intp]]:
        """The image, its label map, and the ids and areas of its objects."""
        rgb = read_rgb(self.paths.image)
        masks = self.paths.masks
        labels = read_label_map(masks)
        if labels.shape != rgb.shape[:2]:
            (h, w), (height, width) = labels.shape, rgb.shape[:2]
            raise UnreadableSourceError(
                f"{masks} is {w}x{h}, but {self.paths.image} is {width}x{height} pixels"
            )
        ids, areas = np.unique(labels, return_counts=True)
        return rgb, labels, ids[ids > 0], areas[ids > 0]


def find_label_maps(
    root: Path, *, held_out_percent: int = 0, images: int | None = None
) -> list[ImageSet]:
    """The sources below `root`, by name.

    held_out_percent: only the images that training holds out at this percentage (0: all images); a
    source may end up with none. images: maximum per source, evenly spread. Raises `SourceError`.
    """
    if not root.is_dir():
        raise SourceNotFoundError(f"there is no folder {root}")
    folders = sorted(folder for folder in root.iterdir() if (folder / "images").is_dir())
    if not folders:
        is_source = (root / "images").is_dir()
        hint = "; it is a source itself: give the folder above" if is_source else ""
        raise SourceNotFoundError(f"no <source>/images folder below {root}{hint}")
    return [ImageSet(folder.name, _items(folder, held_out_percent, images)) for folder in folders]


def _items(folder: Path, held_out_percent: int, images: int | None) -> tuple[LabelMapItem, ...]:
    files = sorted(
        file
        for file in (folder / "images").iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise UnreadableSourceError(f"{folder / 'images'} holds no images")
    found = [LabeledImage(file, folder / "masks" / f"{file.stem}.png") for file in files]
    if held_out_percent:
        found = [paths for paths in found if is_held_out(paths, held_out_percent)]
    return tuple(LabelMapItem(paths) for paths in spread(found, images))
