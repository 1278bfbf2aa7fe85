"""Recognition by untrained similarity: the appearance memory on the grid that masks live on."""

from __future__ import annotations

import cv2
import numpy as np

from maskstream.pipeline.lab.evaluation.video.appearance import (
    AppearanceMemory,
    AppearanceSettings,
    CellFeatures,
    MemoryReadout,
)
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.track import LOGIT_LIMIT

MAX_CELLS = 64  # along the long side; the work of reading grows with the fourth power


class Recognizer:
    """Learns what objects look like on one keyframe and finds them on others.

    working_hw: size of the grid on which masks are given and taken.
    """

    def __init__(self, geometry: InputGeometry, working_hw: SizeHW) -> None:
        self.memory = AppearanceMemory(AppearanceSettings())
        self._working_hw = working_hw
        self._geometry = geometry
        stride = -(-max(geometry.grid_hw) // MAX_CELLS)
        height, width = geometry.grid_hw
        self._cells_hw = (height // stride, width // stride)

    def cells(self, features: Features) -> CellFeatures:
        """A keyframe's features by cell."""
        maps = (features.tensors[name][0] for name in ("features_s8", "features_s16"))
        return CellFeatures.of(maps, self._cells_hw)

    def add_reference(self, object_id: int, cells: CellFeatures, mask: FloatMap) -> None:
        """Remember an object for good; mask: logits at the working resolution."""
        share = np.clip(self._geometry.from_size(mask) / 2 + 0.5, 0, 1)
        coverage = cv2.resize(share, self._cells_hw[::-1], interpolation=cv2.INTER_AREA)
        self.memory.add_reference(object_id, cells, np.asarray(coverage, np.float32))

    def add_recent(
        self, object_id: int, cells: CellFeatures, readout: MemoryReadout, now_s: float
    ) -> None:
        """Remember an object for a few keyframes."""
        self.memory.add_recent(object_id, cells, readout.coverage, now_s)

    def read(self, object_id: int, cells: CellFeatures) -> MemoryReadout:
        """Search an object in the whole image."""
        return self.memory.read(object_id, cells)

    def logits(self, readout: MemoryReadout) -> FloatMap:
        """A reading as logits at the working resolution."""
        h, w = self._geometry.grid_hw
        fine = cv2.resize(readout.coverage, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._geometry.to_size((2 * fine - 1) * LOGIT_LIMIT, self._working_hw)
