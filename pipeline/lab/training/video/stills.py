"""Labelled stills and cut-outs: where the layers of a training sequence come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.augment import Image, Labels
from maskstream.pipeline.lab.training.data import (
    LabeledImage,
    cutouts,
    is_held_out,
    labeled_images,
)

Sprite = npt.NDArray[np.uint8]
"""RGBA, alpha not premultiplied, uint8 [H, W, 4]."""

SPRITE_SIDE = 320  # pixels, long side at most
_LEAST_SHARE = 0.004  # of its image that an object covers to become a sprite
_LEAST_SOLIDITY = 0.35  # of an object's convex hull
_EDGE_SHARE = 0.25  # of an object's box sides that may lie on the image's border
_ATTEMPTS = 40

SOURCE_WEIGHTS = {
    "coco_people": 4.0,
    "coco_permissive": 5.0,
    "coco_street": 2.0,
    "wild_animals": 3.0,
    "feral_cats": 2.0,
    "ccp": 2.5,
    "butterflies": 1.0,
    "hand_tools": 1.2,
    "trash_bags": 0.8,
    "retail_products": 0.8,
    "microcontrollers": 0.5,
    "dogs_cats": 1.0,
    "facades": 0.5,
    "books": 0.4,
    "food_plates": 0.4,
    "blocks_ramp": 0.3,
    "small_items": 0.4,
    "chicken_parts": 0.3,
    "fingernails": 0.3,
    "nuts_dates": 0.3,
    "mushrooms": 0.15,
    "granular": 0.1,
    "nuclei": 0.1,
}
"""Relative odds of a source; unnamed ones have 0.5."""

WHOLE_SOURCES = frozenset({"ccp"})  # the union of all labels is an object, too: a dressed person


@dataclass(frozen=True, slots=True)
class Still:
    """A labelled image of a source."""

    source: str
    image: LabeledImage


@dataclass(slots=True)
class StillLibrary:
    """Stills by source and cut-outs; `draw_*` are functions of the generator alone.

    held_back: of the scenes that training never sees, or of all others.
    """

    stills: dict[str, list[Still]]
    cutouts: list[Path]
    _odds: npt.NDArray[np.float64] = field(init=False)
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = sorted(self.stills)
        weights = np.array([SOURCE_WEIGHTS.get(name, 0.5) for name in self._names])
        self._odds = weights / weights.sum()

    @classmethod
    def find(cls, root: Path, *, held_back: bool, percent: int = 6) -> StillLibrary:
        """Find the stills below `root` (`<source>/{images,masks,cutouts}`).

        Raises `TrainingDataError` if there are none.
        """
        stills: dict[str, list[Still]] = {}
        for folder in sorted(p for p in root.iterdir() if p.is_dir()):
            found = [
                Still(folder.name, image)
                for image in labeled_images(folder)
                if is_held_out(image, percent) == held_back
            ]
            if found:
                stills[folder.name] = found
        if not stills:
            raise TrainingDataError(f"no <source>/images below {root}")
        chosen = [f for n, f in enumerate(cutouts(root)) if (n % 16 == 0) == held_back]
        return cls(stills, chosen)

    def draw_still(self, rng: np.random.Generator, source: str | None = None) -> Still:
        """A still, of a certain source if one is named."""
        name = source or self._names[int(rng.choice(len(self._names), p=self._odds))]
        items = self.stills[name]
        return items[int(rng.integers(len(items)))]

    def draw_sprite(
        self, rng: np.random.Generator, source: str | None = None
    ) -> tuple[Sprite, str | None]:
        """An object cut out of its image, and its source (None: of a cut-out)."""
        for _ in range(_ATTEMPTS):
            if source is None and self.cutouts and rng.random() < 0.22:
                return read_cutout(self.cutouts[int(rng.integers(len(self.cutouts)))]), None
            still = self.draw_still(rng, source)
            sprite = cut_out(rng, *still.image.load(), whole=still.source in WHOLE_SOURCES)
            if sprite is not None:
                return sprite, still.source
            source = None  # little of this source can be cut out
        raise TrainingDataError("no object of the stills can be cut out")


def cut_out(
    rng: np.random.Generator, image: Image, labels: Labels, *, whole: bool = False
) -> Sprite | None:
    """One of the objects of an image as a sprite, if the drawn one suits."""
    ids, counts = np.unique(labels, return_counts=True)
    keep = (ids > 0) & (counts >= _LEAST_SHARE * labels.size)
    if not keep.any():
        return None
    if whole and rng.random() < 0.7:
        mask = labels > 0
    else:
        odds = np.sqrt(counts[keep])
        mask = labels == int(rng.choice(ids[keep], p=odds / odds.sum()))
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    part = mask[y : y + h, x : x + w]
    rows, columns = mask.shape
    on_border = [
        (y == 0, part[0]),
        (y + h == rows, part[-1]),
        (x == 0, part[:, 0]),
        (x + w == columns, part[:, -1]),
    ]
    if any(at_border and side.mean() > _EDGE_SHARE for at_border, side in on_border):
        return None
    if min(w, h) < 12 or not _is_solid(part):
        return None
    pixels = image[y : y + h, x : x + w]
    # A pixel less all round: what lies between object and ground carries the old ground's color.
    padded = np.pad(part.view(np.uint8), 2)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8)) * np.uint8(255)
    alpha = cv2.GaussianBlur(inner, (3, 3), 0.7)
    rgb = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return _bounded(np.dstack([rgb, alpha]).astype(np.uint8))


def read_cutout(file: Path) -> Sprite:
    """An RGBA file as a sprite. Raises `TrainingDataError`."""
    bgra = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
        raise TrainingDataError(f"{file} is not an RGBA image")
    return _bounded(np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), np.uint8))


def _bounded(sprite: Sprite) -> Sprite:
    scale = SPRITE_SIDE / max(sprite.shape[:2])
    if scale >= 1:
        return sprite
    size = (max(1, round(sprite.shape[1] * scale)), max(1, round(sprite.shape[0] * scale)))
    return np.asarray(cv2.resize(sprite, size, interpolation=cv2.INTER_AREA), np.uint8)


def _is_solid(mask: npt.NDArray[np.bool_]) -> bool:
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outlines))
    return bool(mask.sum() >= _LEAST_SOLIDITY * max(1.0, cv2.contourArea(hull)))
