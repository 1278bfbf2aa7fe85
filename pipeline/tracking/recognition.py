"""The appearance memory between the encoder's features and the grid that tracks live on."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import cv2
import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.appearance import (
    AppearanceMemory,
    AppearanceSettings,
    CellFeatures,
    Reading,
)
from maskstream.trackers.track import LOGIT_LIMIT

MOST_CELLS = 64  # along the long side; the work of reading grows with the fourth power


def appearance_settings(config: PipelineConfig) -> AppearanceSettings:
    """What a configuration says of the memory."""
    given = config.appearance
    return AppearanceSettings(given.recent, given.recent_every_s, given.references)


class Recognizer:
    """Learns what objects look like on one keyframe and finds them on others.

    work_hw: size of the grid on which masks are given and taken.
    """

    def __init__(
        self, geometry: InputGeometry, work_hw: SizeHW, settings: AppearanceSettings
    ) -> None:
        self.memory = AppearanceMemory(settings)
        self._work_hw = work_hw
        self._set(geometry)

    def _set(self, geometry: InputGeometry) -> None:
        self._geometry = geometry
        stride = -(-max(geometry.grid_hw) // MOST_CELLS)
        height, width = geometry.grid_hw
        self._cells_hw = (height // stride, width // stride)

    def at(self, geometry: InputGeometry) -> Recognizer:
        """The same, with the same memory, for another size of the encoder's input."""
        other = copy(self)
        other._set(geometry)
        return other

    def cells(self, features: Features) -> CellFeatures:
        """A keyframe's features by cell."""
        maps = (features.tensors[name][0] for name in ("features_s8", "features_s16"))
        return CellFeatures.of(maps, self._cells_hw)

    def knows(self, object_id: int) -> bool:
        """Whether an object is remembered."""
        return object_id in self.memory

    def learn(self, object_id: int, cells: CellFeatures, mask: FloatMap) -> None:
        """Remember an object for good; mask: logits on the work grid."""
        self.memory.learn(object_id, cells, self._coverage(mask))

    def follow(self, object_id: int, cells: CellFeatures, reading: Reading, now_s: float) -> None:
        """Remember an object for a few keyframes."""
        self.memory.follow(object_id, cells, reading.coverage, now_s)

    def read(self, object_id: int, cells: CellFeatures, around: FloatMap | None) -> Reading:
        """Look for an object near a mask (logits on the work grid; None: anywhere)."""
        near = None if around is None else self._coverage(around)
        return self.memory.read(object_id, cells, near)

    def logits(self, reading: Reading) -> FloatMap:
        """A reading as logits on the work grid."""
        h, w = self._geometry.grid_hw
        fine = cv2.resize(reading.coverage, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._geometry.to_size((2 * fine - 1) * LOGIT_LIMIT, self._work_hw)

    def forget_others(self, kept: Iterable[int]) -> None:
        """Forget all objects but these."""
        self.memory.forget(kept)

    def _coverage(self, logits: FloatMap) -> FloatMap:
        """Share of every cell that a mask on the work grid covers."""
        share = np.clip(self._geometry.from_size(logits) / 2 + 0.5, 0, 1)
        cells = self._cells_hw[::-1]
        return np.asarray(cv2.resize(share, cells, interpolation=cv2.INTER_AREA), np.float32)
