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
    MemoryReadout,
)
from maskstream.trackers.track import LOGIT_LIMIT

MAX_CELLS = 64  # along the long side; the work of reading grows with the fourth power


def appearance_settings(config: PipelineConfig) -> AppearanceSettings:
    """What a configuration says of the memory."""
    given = config.appearance
    return AppearanceSettings(given.recent, given.recent_interval_s, given.references)


class Recognizer:
    """Learns what objects look like on one keyframe and finds them on others.

    working_hw: size of the grid on which masks are given and taken.
    """

    def __init__(
        self, geometry: InputGeometry, working_hw: SizeHW, settings: AppearanceSettings
    ) -> None:
        self.memory = AppearanceMemory(settings)
        self._working_hw = working_hw
        self._set(geometry)

    def _set(self, geometry: InputGeometry) -> None:
        self._geometry = geometry
        stride = -(-max(geometry.grid_hw) // MAX_CELLS)
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

    def add_reference(self, object_id: int, cells: CellFeatures, mask: FloatMap) -> None:
        """Remember an object for good; mask: logits at the working resolution."""
        self.memory.add_reference(object_id, cells, self._coverage(mask))

    def add_recent(
        self, object_id: int, cells: CellFeatures, readout: MemoryReadout, now_s: float
    ) -> None:
        """Remember an object for a few keyframes."""
        self.memory.add_recent(object_id, cells, readout.coverage, now_s)

    def read(self, object_id: int, cells: CellFeatures, around: FloatMap | None) -> MemoryReadout:
        """Look for an object near a mask (logits at the working resolution; None: anywhere)."""
        near = None if around is None else self._coverage(around)
        return self.memory.read(object_id, cells, near)

    def logits(self, readout: MemoryReadout) -> FloatMap:
        """A reading as logits at the working resolution."""
        h, w = self._geometry.grid_hw
        fine = cv2.resize(readout.coverage, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._geometry.to_size((2 * fine - 1) * LOGIT_LIMIT, self._working_hw)

    def keep_only(self, kept: Iterable[int]) -> None:
        """Forget all objects but these."""
        self.memory.forget(kept)

    def _coverage(self, logits: FloatMap) -> FloatMap:
        """Share of every cell that a mask at the working resolution covers."""
        share = np.clip(self._geometry.from_size(logits) / 2 + 0.5, 0, 1)
        cells = self._cells_hw[::-1]
        return np.asarray(cv2.resize(share, cells, interpolation=cv2.INTER_AREA), np.float32)
