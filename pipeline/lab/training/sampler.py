"""Training samples: a randomly cropped and augmented image with some of its objects.

Every sample is a pure function of (seed, step), so a run can be resumed at any step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.augment import (
    AugmentConfig,
    Image,
    Labels,
    content_size,
    crop,
    fit_into,
    pad_to,
    photometric,
)
from maskstream.pipeline.lab.training.data import Source
from maskstream.pipeline.lab.training.proposals import Proposal, disturb, move_elsewhere
from maskstream.pipeline.segmenter.geometry import GRID_STRIDE


@dataclass(frozen=True, slots=True)
class Sample:
    """One training image with its objects.

    image: RGB uint8 [H, W, 3]. masks: float32 [P, H/cell, W/cell], coverage 0..1 of the cells by
    the object. proposals: a simulated tracker's proposal for each object. source: its name.
    """

    image: Image
    masks: npt.NDArray[np.float32]
    proposals: tuple[Proposal, ...]
    source: str


class Sampler:
    """Draws augmented samples; deterministic in (seed, step, index)."""

    def __init__(
        self,
        sources: list[Source],
        cutouts: list[Path],
        *,
        seed: int,
        objects: int,
        augment: AugmentConfig,
        min_area: float = 0.001,
        max_area: float = 0.9,
        absent: float = 0.0,
        cell: int = GRID_STRIDE,
    ) -> None:
        self._cell = cell
        self.sources = [s for s in sources if s.train]
        weights = np.array([s.weight for s in self.sources])
        self._odds = weights / weights.sum()
        self._cutouts = cutouts
        self._seed = seed
        self._objects = objects
        self._augment = augment
        self._min_area = min_area
        self._max_area = max_area
        self._absent_share = absent

    def batch(self, step: int, size: int, size_hw: tuple[int, int]) -> list[Sample]:
        """Draw `size` samples of height and width `size_hw` for a step."""
        return [
            self._sample(np.random.default_rng((self._seed, step, i)), size_hw) for i in range(size)
        ]

    def view(
        self, rng: np.random.Generator, size_hw: tuple[int, int]
    ) -> tuple[Image, Labels, Source]:
        """An augmented view of a drawn image, padded to `size_hw`, its labels and its source."""
        scene, ids, source = self._scene(rng)
        return *pad_to(*self._view(rng, scene, ids, size_hw), size_hw), source

    def _sample(self, rng: np.random.Generator, size_hw: tuple[int, int]) -> Sample:
        while True:
            image, labels, source = self.view(rng, size_hw)
            objects = self._choose(rng, labels, source.whole)
            if objects is not None:
                break
        cells_wh = (size_hw[1] // self._cell, size_hw[0] // self._cell)
        small = np.stack(
            [
                cv2.resize(m.astype(np.float32), cells_wh, interpolation=cv2.INTER_AREA)
                for m in objects
            ]
        )
        proposals = tuple(self._propose(rng, small, i) for i in range(len(small)))
        return Sample(image, small, proposals, source.name)

    def _view(
        self, rng: np.random.Generator, scene: Image, ids: Labels, size_hw: tuple[int, int]
    ) -> tuple[Image, Labels]:
        """An augmented view of a scene, of at most `size_hw`."""
        if self._augment.flip_only:
            image, labels = fit_into(scene, ids, size_hw)
            step = 1 if rng.random() < 0.5 else -1
            return image[:, ::step], labels[:, ::step]
        content_hw = content_size(rng, size_hw, self._augment)
        image, labels = crop(rng, scene, ids, content_hw, self._augment)
        if rng.random() < self._augment.paste and self._cutouts:
            for _ in range(int(rng.integers(1, 4))):
                self._paste(rng, image, labels)
        return photometric(rng, image, self._augment), labels

    def _propose(
        self, rng: np.random.Generator, masks: npt.NDArray[np.float32], index: int
    ) -> Proposal:
        """A disturbed mask of one object, or sometimes of an object that is absent."""
        mask = masks[index]
        moved = (
            move_elsewhere(rng, mask, masks.max(0)) if rng.random() < self._absent_share else None
        )
        neighbor = masks[int(rng.integers(len(masks)))]
        return Proposal.of(
            disturb(rng, mask if moved is None else moved, neighbor), moved is not None
        )

    def _scene(self, rng: np.random.Generator) -> tuple[Image, Labels, Source]:
        source = self.sources[int(rng.choice(len(self.sources), p=self._odds))]
        item = source.train[int(rng.integers(len(source.train)))]
        image, labels = item.load()
        return image, labels, source

    def _paste(self, rng: np.random.Generator, image: Image, labels: Labels) -> None:
        """Paste one cut-out in place, randomly scaled and rotated, with a new id."""
        path = self._cutouts[int(rng.integers(len(self._cutouts)))]
        rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if rgba is None or rgba.ndim != 3 or rgba.shape[2] != 4:
            raise TrainingDataError(f"{path} is not an RGBA image")
        h, w = labels.shape
        side = float(np.exp(rng.uniform(np.log(0.08), np.log(0.6)))) * max(h, w)
        scale = side / max(rgba.shape[:2])
        turn = cv2.getRotationMatrix2D(
            (rgba.shape[1] / 2, rgba.shape[0] / 2), float(rng.uniform(-40, 40)), scale
        )
        if rng.random() < 0.5:
            rgba = np.ascontiguousarray(rgba[:, ::-1])
        turn[:, 2] += rng.uniform(0, 1, 2) * (w, h) - (rgba.shape[1] / 2, rgba.shape[0] / 2)
        placed = cv2.warpAffine(
            rgba, turn, (w, h), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        alpha = placed[..., 3:].astype(np.float32) / 255
        if (alpha > 0.5).mean() < self._min_area:
            return
        rgb = placed[..., 2::-1].astype(np.float32)
        image[:] = (image * (1 - alpha) + rgb * alpha + 0.5).astype(np.uint8)
        labels[alpha[..., 0] > 0.5] = labels.max() + 1

    def _choose(
        self, rng: np.random.Generator, labels: Labels, whole: bool
    ) -> npt.NDArray[np.bool_] | None:
        """Draw objects with odds proportional to the square root of their area; bool [P, H, W]."""
        ids, counts = np.unique(labels, return_counts=True)
        share = counts / labels.size
        keep = (ids > 0) & (share >= self._min_area) & (share <= self._max_area)
        ids, share = ids[keep], share[keep]
        if whole and (labels > 0).mean() <= self._max_area and len(ids):
            ids, share = np.append(ids, -1), np.append(share, (labels > 0).mean())
        if not len(ids):
            return None
        odds = np.sqrt(share)
        count = self._objects
        replace = len(ids) < count
        drawn = rng.choice(len(ids), size=count, replace=replace, p=odds / odds.sum())
        return np.stack([labels > 0 if ids[i] < 0 else labels == ids[i] for i in drawn])
