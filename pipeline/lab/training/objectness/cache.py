"""Encoder features and boxes of augmented stills on disk, so that training needs no encoder.

A file holds one batch of images of one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.lab.training.augment import AugmentConfig, Labels
from maskstream.pipeline.lab.training.data import cutouts, find_sources
from maskstream.pipeline.lab.training.objectness.config import ObjectnessTrainConfig
from maskstream.pipeline.lab.training.sampler import Sampler
from maskstream.pipeline.lab.training.video.cache import Arrays, write_arrays
from maskstream.pipeline.models.find import find_model
from maskstream.pipeline.objectness.model import INPUTS
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter
from maskstream.pipeline.types import SizeHW

AREA_MIN = 0.001
"""Objects that cover a smaller share of the image are ignored."""
AREA_MAX = 0.95
_SIDE_MIN = 6  # pixels of the input

Boxes = npt.NDArray[np.float32]


@dataclass(slots=True)
class BatchMaker:
    """Draws and encodes batches; a batch is a function of the configuration and its number."""

    config: ObjectnessTrainConfig
    _sampler: Sampler = field(init=False)
    _segmenters: dict[SizeHW, OpenVinoSegmenter] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        sources = find_sources(
            config.data,
            weights=config.weights,
            whole=config.whole,
            held_out_percent=config.held_out_percent,
        )
        self._sampler = Sampler(
            sources,
            cutouts(config.data),
            seed=config.seed,
            objects=1,
            augment=AugmentConfig(paste=config.paste),
        )

    def __call__(self, number: int) -> Arrays:
        """Feature maps float16 [B, C, h, w] by name, `boxes` float32 [N, 4] of all images, xyxy in
        input pixels, `box_image` int64 [N], and `background` float32 [B], its weight by image.
        """
        config = self.config
        size_hw = config.sizes_hw[number % len(config.sizes_hw)]
        segmenter = self._segmenter(size_hw)
        maps: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in INPUTS}
        boxes: list[Boxes] = []
        weights = []
        for index in range(config.batch):
            rng = np.random.default_rng((config.seed, number, index, 0))
            image, labels, source = self._sampler.view(rng, size_hw)
            tensors = segmenter.encode_rgb(image).tensors
            for name in INPUTS:
                maps[name].append(tensors[name][0])
            boxes.append(label_boxes(labels, whole=source.whole))
            partly = source.name in config.partly_labeled
            weights.append(config.partly_weight if partly else 1.0)
        arrays: Arrays = {name: np.stack(found).astype(np.float16) for name, found in maps.items()}
        arrays["boxes"] = np.concatenate(boxes)
        arrays["box_image"] = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        arrays["background"] = np.array(weights, np.float32)
        return arrays

    def _segmenter(self, size_hw: SizeHW) -> OpenVinoSegmenter:
        if size_hw not in self._segmenters:
            folder = find_model(self.config.encoder)
            self._segmenters[size_hw] = OpenVinoSegmenter(folder, size_hw, threads=1)
        return self._segmenters[size_hw]


def label_boxes(labels: Labels, *, whole: bool = False) -> Boxes:
    """Boxes xyxy [N, 4] of the objects of a label map; whole: of all of them together, too."""
    masks = [labels == i for i in np.unique(labels) if i]
    if whole and len(masks) > 1:
        masks.append(labels > 0)
    boxes = []
    for mask in masks:
        if not AREA_MIN <= mask.mean() <= AREA_MAX:
            continue
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        if min(width, height) >= _SIDE_MIN:
            boxes.append([x, y, x + width, y + height])
    return np.array(boxes, np.float32).reshape(-1, 4)


def batches(folder: Path) -> list[Path]:
    """The cached batches of a folder, oldest first."""
    return sorted(folder.glob("batch-*.npz"))


def prepare_batches(config: ObjectnessTrainConfig) -> Iterator[int]:
    """Encode and write the batches that are missing; yields how many there are after each."""
    config.folder.mkdir(parents=True, exist_ok=True)
    found = len(batches(config.folder))
    maker = BatchMaker(config) if found < config.batches else None
    for number in range(found, config.batches):
        assert maker is not None  # noqa: S101
        write_arrays(config.folder / f"batch-{number:06d}.npz", maker(number))
        yield number + 1
