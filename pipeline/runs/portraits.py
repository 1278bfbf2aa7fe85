"""Portraits: frames of a part that show its objects well, by which they are recognized."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.memory.model import FrameKeys
from maskstream.pipeline.models.networks import Networks
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import FrameObjects, MaskStore
from maskstream.pipeline.tracking.recognition import MemoryGrid
from maskstream.pipeline.tracking.steps import mask_logits
from maskstream.pipeline.types import ObjectResult, RgbImage
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import BoolMap

Colors = npt.NDArray[np.float32]
"""Shares of a mask's pixels in the bins of CIELAB, float32 [256], which add up to 1."""

_NEAR = 16  # visible frames at each end of an object's life, of which its portraits are chosen
_AS_GOOD = 0.8  # of the best portrait's quality: frames that may show several objects at once
_BINS = (4, 8, 8)  # of lightness, which depends on the light more than a and b
_RANGES = (0, 256, 64, 192, 64, 192)  # OpenCV's 8-bit CIELAB; stronger colors are rare


@dataclass(slots=True)
class Life:
    """The frames of a part on which an object is visible.

    label: its class, "" if it has none. frames: their number. first, last: row and quality (area
    times score) of the first and the last few.
    """

    label: str = ""
    frames: int = 0
    first: list[tuple[int, float]] = field(default_factory=list)
    last: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_NEAR))

    def add(self, row: int, seen: ObjectResult) -> None:
        """Add the next frame."""
        self.label = seen.label or self.label
        self.frames += 1
        self.last.append((row, seen.area * seen.score))
        if len(self.first) < _NEAR:
            self.first.append(self.last[-1])


def lives_of(frames: Iterable[FrameObjects]) -> dict[int, Life]:
    """The lives of all objects of a part, by id."""
    lives: dict[int, Life] = {}
    for row, frame in enumerate(frames):
        for seen in frame.objects:
            life = lives.setdefault(seen.id, Life())
            if seen.area and seen.state in (TrackState.TRACKED, TrackState.REENTERED):
                life.add(row, seen)
    return lives


@dataclass(frozen=True, slots=True)
class Portrait:
    """A frame of a part, for the memory.

    masks: bool [H, W] at the working resolution of all its objects, by id. colors: of those that
    it shows well.
    """

    keys: FrameKeys
    masks: Mapping[int, BoolMap]
    colors: Mapping[int, Colors]


class Portraits:
    """Makes the portraits of a part, few of which show every object well."""

    def __init__(
        self, networks: Networks, grid: MemoryGrid, video: Seekable, part: MaskStore
    ) -> None:
        self._networks = networks
        self._grid = grid
        self._video = video
        self._part = part

    def of(self, ends: Mapping[int, Iterable[tuple[int, float]]]) -> list[Portrait]:
        """Portraits chosen among the frames of each object, (row, quality) by id.

        Raises `SourceError`, `StoreError`.
        """
        good = {object_id: _good_rows(end) for object_id, end in ends.items()}
        return [self._portrait(row, good) for row in _cover(good)]

    def _portrait(self, row: int, good: Mapping[int, set[int]]) -> Portrait:
        result = self._part.frame(row)
        frame = self._video.frame(result.index)
        size_hw = self._grid.working_hw
        masks = {o.id: mask_logits(result.mask(o.id), size_hw) > 0 for o in result.objects}
        shown = {object_id: mask for object_id, mask in masks.items() if mask.any()}
        image = frame.rgb(size_hw)
        return Portrait(
            self._grid.keys_of(self._networks.tracks.encode(frame)),
            shown,
            {i: _colors(image, mask) for i, mask in shown.items() if row in good.get(i, ())},
        )


def likeness(one: Colors, other: Colors) -> float:
    """How alike two distributions of colors are, 0..1 (histogram intersection)."""
    return float(np.minimum(one, other).sum())


def _colors(image: RgbImage, mask: BoolMap) -> Colors:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    counts = cv2.calcHist([lab], [0, 1, 2], mask.view(np.uint8), _BINS, _RANGES)
    return np.asarray(counts.reshape(-1) / max(1.0, counts.sum()), np.float32)


def _good_rows(frames: Iterable[tuple[int, float]]) -> set[int]:
    """The rows of frames that show an object nearly as well as the best one."""
    rated = list(frames)
    best = max(quality for _, quality in rated)
    return {row for row, quality in rated if quality >= _AS_GOOD * best}


def _cover(rows: Mapping[int, set[int]]) -> list[int]:
    """A few rows among which each object has one of its own (greedy set cover)."""
    chosen: list[int] = []
    left = list(rows.values())
    while left:
        counts = Counter(row for allowed in left for row in allowed)
        chosen.append(max(sorted(counts), key=counts.__getitem__))
        left = [allowed for allowed in left if chosen[-1] not in allowed]
    return chosen
