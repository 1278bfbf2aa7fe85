"""Masks that were found in files of other tools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from maskstream.pipeline.exports.frames import Mask

SPECK_PX = 16
"""Smaller parts of a noisy matte are dropped, pixels."""
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True, slots=True, eq=False)
class FoundMask:
    """A mask of an object on a frame, bool [H, W]. name: of the object, "" if it has none."""

    frame: int
    object_id: int
    mask: Mask
    name: str = ""


@dataclass(slots=True)
class Specks:
    """Counts the small parts that are dropped from noisy mattes.

    area_min: parts with fewer pixels are specks.
    """

    area_min: int = SPECK_PX
    dropped: int = 0
    frames: set[int] = field(default_factory=set)

    def without(self, masks: Iterable[FoundMask]) -> Iterator[FoundMask]:
        """The masks without their specks; empty ones are left out."""
        for found in masks:
            count, parts, about, _ = cv2.connectedComponentsWithStats(
                found.mask.astype(np.uint8), connectivity=8
            )
            areas = about[1:count, cv2.CC_STAT_AREA]
            specks = 1 + np.flatnonzero(areas < self.area_min)
            if len(specks):
                self.dropped += len(specks)
                self.frames.add(found.frame)
                found = replace(found, mask=found.mask & ~np.isin(parts, specks))
            if found.mask.any():
                yield found


def ids_of_names(names: Iterable[str]) -> Mapping[str, int]:
    """An object id for each name: the last number in it (`car_3`), else the first free one."""
    ids: dict[str, int] = {}
    unnumbered = []
    for name in names:
        number = _LAST_NUMBER.search(name)
        wanted = int(number[1]) if number else 0
        if wanted and wanted not in ids.values():
            ids[name] = wanted
        else:
            unnumbered.append(name)
    for name in unnumbered:
        ids[name] = next(i for i in range(1, len(ids) + 2) if i not in ids.values())
    return ids
