"""One frame on its way into an export: its number, and the chosen objects' masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import FrameResult, LabelMap

Mask = npt.NDArray[np.bool_]

UNNAMED = "object"
"""The category of objects that nobody named."""


@dataclass(frozen=True, slots=True)
class ExportObject:
    """An object that is exported. name: what a person called it, "" if nobody did."""

    id: int
    name: str = ""

    @property
    def category(self) -> str:
        """Its class in formats that have classes."""
        return self.name or UNNAMED


@dataclass(frozen=True, slots=True, eq=False)
class ExportFrame:
    """A frame of the store. number: as it is written; row: counts the exported frames from 0."""

    number: int
    row: int
    result: FrameResult
    objects: tuple[ExportObject, ...]

    def mask(self, object_id: int) -> Mask:
        """Whole mask of one object, bool [H, W], also where another one lies over it."""
        return self.result.mask(object_id)

    def masks(self) -> Iterator[tuple[ExportObject, Mask]]:
        """The chosen objects that have pixels here, with their whole masks, by id."""
        for chosen in self.objects:
            mask = self.mask(chosen.id)
            if mask.any():
                yield chosen, mask

    def label_map(self) -> LabelMap:
        """Uint16 [H, W]: the chosen object that shows, 0 where there is none.

        Where one lies under an object that is not exported, it shows.
        """
        kept = np.zeros(1 << 16, np.uint16)
        ids = [chosen.id for chosen in self.objects]
        kept[ids] = ids
        labels = kept[self.result.labels]
        for part in self.result.covered:
            if kept[part.object_id]:
                rows, columns = part.mask.shape
                window = labels[part.y0 : part.y0 + rows, part.x0 : part.x0 + columns]
                window[part.mask & (window == 0)] = part.object_id
        return labels

    def score(self, object_id: int) -> float:
        """Confidence of an object here, 0 to 1."""
        return next((o.score for o in self.result.objects if o.id == object_id), 0.0)


def box_xywh(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, width, height of a mask that is not empty, pixels."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, width, height
