"""A frame to export: its number, and the masks of the chosen objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import FrameResult, LabelMap

Mask = npt.NDArray[np.bool_]

UNNAMED = "object"
"""The category of unnamed objects."""


@dataclass(frozen=True, slots=True)
class ExportObject:
    """An object to export. name: given by a person, label: its class by a detector; else ""."""

    id: int
    name: str = ""
    label: str = ""

    @property
    def category(self) -> str:
        """Category in formats that have categories."""
        return self.label or self.name or UNNAMED


@dataclass(frozen=True, slots=True, eq=False)
class ExportFrame:
    """A frame to export. number: frame number in the export; row: index among exported frames."""

    number: int
    row: int
    result: FrameResult
    objects: tuple[ExportObject, ...]

    def mask(self, object_id: int) -> Mask:
        """Whole mask of an object, bool [H, W], including covered pixels."""
        return self.result.mask(object_id)

    def masks(self) -> Iterator[tuple[ExportObject, Mask]]:
        """Yield the chosen objects with pixels on this frame and their whole masks, by id."""
        for chosen in self.objects:
            mask = self.mask(chosen.id)
            if mask.any():
                yield chosen, mask

    def label_map(self) -> LabelMap:
        """Label map of the chosen objects, uint16 [H, W]; 0 is background.

        An object covered only by objects that are not exported is visible.
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
        """Confidence of an object on this frame, 0 to 1."""
        return next((o.score for o in self.result.objects if o.id == object_id), 0.0)


def box_xywh(mask: Mask) -> tuple[int, int, int, int]:
    """Bounding box (left, top, width, height) of a non-empty mask, pixels."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, width, height
