"""Appearance memory: masks by similarity of encoder features, without training.

Label propagation by feature affinity (as in Jabri et al., arXiv 2006.14613, and STCN, arXiv
2106.05210, without learned heads): every cell of the current keyframe is matched with the most
similar cells of remembered keyframes and takes the weighted mean of their labels. Prompted
keyframes are kept for good; a few recent ones follow changes of appearance.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

_SIMILARITY_RANGE = 0.15  # below the best match; less similar cells have no weight
_UNRELATED_SIMILARITY = 1.0  # approximate similarity of unrelated cells
_SIMILARITY_DROP = 0.1  # of the mean, from which a component is a similar object
_SMALL_PART_SHARE = 0.35  # share of the largest component's area below which a component is dropped
_DENSE_CELLS = 100  # cells; a larger window is not queried densely
_BORDER_CELLS = 2  # cells on either side of an object's border that are queried densely
# Strides at which the rest of the image is remembered, where similar objects may be. With 3 for
# both, the generated crossing of similar objects has a J&F of 64 instead of 69.
_REFERENCE_STEP, _RECENT_STEP = 2, 4
_MAX_CHANNELS = 128  # of an image that OpenCV 5 resizes
_BLOCK_CELLS = 256  # cells matched at once; bounds the memory a readout takes

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class AppearanceSettings:
    """Settings of the appearance memory and its search.

    recent: recent keyframes kept, at least `recent_interval_s` seconds apart. references: prompted
    keyframes kept, at most. temperature: of similarities, which are the sum of the cosines of both
    feature strides. margin, margin_cells: how far beyond an object's box it is searched and its
    surroundings are remembered, as a share of the box's longer side plus a number of cells.
    """

    recent: int = 2
    recent_interval_s: float = 0.15
    references: int = 4
    temperature: float = 0.05
    margin: float = 0.3
    margin_cells: int = 3


@dataclass(frozen=True, slots=True)
class CellFeatures:
    """Features of a keyframe per cell: float32 [h * w, C], concatenated unit vectors."""

    keys: FloatMap
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, maps: Iterable[FloatMap], grid_hw: tuple[int, int]) -> CellFeatures:
        """Build from maps [C, h, w] of one image, each resized to the grid and normalized."""
        h, w = grid_hw
        keys = []
        for features in maps:
            image = np.ascontiguousarray(features.transpose(1, 2, 0))
            if image.shape[:2] != grid_hw:
                shrink = image.shape[0] > h
                interpolation = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
                image = _resized(image, (w, h), interpolation)
            flat = image.reshape(h * w, -1)
            length = np.sqrt(np.einsum("nc,nc->n", flat, flat)) + 1e-6
            keys.append(flat / length[:, None])
        return cls(np.concatenate(keys, axis=1), grid_hw)


def _resized(image: FloatMap, size_wh: tuple[int, int], interpolation: int) -> FloatMap:
    """Resize an image [h, w, C] in groups of at most `_MAX_CHANNELS` channels."""
    width, height = size_wh
    parts = [
        cv2.resize(image[..., first : first + _MAX_CHANNELS], size_wh, interpolation=interpolation)
        for first in range(0, image.shape[2], _MAX_CHANNELS)
    ]
    return np.concatenate([part.reshape(height, width, -1) for part in parts], axis=2)


@dataclass(frozen=True, slots=True)
class MemoryReadout:
    """Readout of the memory for one object on one keyframe.

    coverage: float32 [h, w], 0..1, 0 at cells that were not queried. similarity: float32 [h, w],
    similarity (-2..2) of every cell to the most similar remembered one, -2 at cells not queried.
    """

    coverage: FloatMap
    similarity: FloatMap

    @property
    def affinity(self) -> float:
        """Mean similarity of the object's cells; 0 if it has none."""
        own = self.coverage > 0.5
        return float(self.similarity[own].mean()) if own.any() else 0.0

    @property
    def size(self) -> int:
        """Number of cells of the object."""
        return int((self.coverage > 0.5).sum())

    def drop_small_parts(self) -> MemoryReadout:
        """Keep the components that are not small compared with the largest one."""
        labels, areas = self._components()
        if len(areas) < 2:
            return self
        return self._without_components(
            labels, 1 + np.flatnonzero(areas < _SMALL_PART_SHARE * areas.max())
        )

    def keep_most_similar(self) -> MemoryReadout:
        """Keep the component with the most evidence, and those of about the same similarity.

        Among objects of one kind in an image, the one searched for is the most similar.
        """
        labels, areas = self._components()
        if len(areas) < 2:
            return self
        similarity = np.bincount(labels.reshape(-1), self.similarity.reshape(-1))[1:] / areas
        best = np.argmax(areas * (similarity - _UNRELATED_SIMILARITY))
        return self._without_components(
            labels, 1 + np.flatnonzero(similarity < similarity[best] - _SIMILARITY_DROP)
        )

    def _components(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Labels [h, w] of connected components, from 1, and their areas in cells."""
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (self.coverage > 0.5).view(np.uint8), connectivity=8
        )
        return np.asarray(labels, np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int32)

    def _without_components(
        self, labels: npt.NDArray[np.int32], components: npt.NDArray[np.intp]
    ) -> MemoryReadout:
        return replace(self, coverage=np.where(np.isin(labels, components), 0, self.coverage))


@dataclass(frozen=True, slots=True)
class _MemoryFrame:
    """Remembered cells of one keyframe, in and around an object: keys [n, C], labels [n] 0..1."""

    keys: FloatMap
    labels: FloatMap


@dataclass(slots=True)
class _ObjectMemory:
    references: deque[_MemoryFrame]
    recent: deque[_MemoryFrame] = field(default_factory=deque)
    last_recent_s: float = -math.inf

    def all(self) -> Iterable[_MemoryFrame]:
        yield from self.references
        yield from self.recent


class AppearanceMemory:
    """Feature memory of the objects of one stream; bounded per object."""

    def __init__(self, settings: AppearanceSettings) -> None:
        self.settings = settings
        self._objects: dict[int, _ObjectMemory] = {}

    def add_reference(self, object_id: int, features: CellFeatures, coverage: FloatMap) -> None:
        """Add a keyframe that is kept: an object as prompted or seeded; coverage [h, w] 0..1."""
        known = self._objects.get(object_id)
        if known is None:
            references: deque[_MemoryFrame] = deque(maxlen=self.settings.references)
            known = _ObjectMemory(references, deque(maxlen=self.settings.recent))
            self._objects[object_id] = known
        known.references.append(self._memory(features, coverage, _REFERENCE_STEP))

    def add_recent(
        self, object_id: int, features: CellFeatures, coverage: FloatMap, now_s: float
    ) -> None:
        """Add a recent keyframe of an object as it was tracked, at most one per interval.

        Keyframes close in time repeat each other's errors.
        """
        known = self._objects[object_id]
        if now_s - known.last_recent_s >= self.settings.recent_interval_s:
            known.recent.append(self._memory(features, coverage, _RECENT_STEP))
            known.last_recent_s = now_s

    def read(self, object_id: int, features: CellFeatures) -> MemoryReadout:
        """Search an object: on every other row and column, then around the match."""
        h, w = features.grid_hw
        memories = list(self._objects[object_id].all())
        keys = np.concatenate([m.keys for m in memories])
        labels = np.concatenate([m.labels for m in memories])
        coverage, similarities = np.zeros(h * w, np.float32), np.full(h * w, -2, np.float32)
        near = self._coarse_read(features, keys, labels)
        if (near > 0.5).any():
            window = self._window(near)
            queried = _sample(near, window)
            cells = np.flatnonzero(queried)
            coverage[cells], similarities[cells] = self._match_in_blocks(
                features.keys[cells], keys, labels
            )
            if not queried[window].all():
                _fill(coverage.reshape(h, w)[window], queried[window])
                _fill(similarities.reshape(h, w)[window], queried[window])
        found = MemoryReadout(coverage.reshape(h, w), similarities.reshape(h, w))
        return found.drop_small_parts().keep_most_similar()

    def _coarse_read(self, features: CellFeatures, keys: FloatMap, labels: FloatMap) -> FloatMap:
        """Coverage [h, w] of an object searched on every other row and column."""
        h, w = features.grid_hw
        queried = np.arange(h * w).reshape(h, w)[::2, ::2]
        coverage, similarity = self._match_in_blocks(
            features.keys[queried.reshape(-1)], keys, labels
        )
        shape = queried.shape
        found = MemoryReadout(coverage.reshape(shape), similarity.reshape(shape)).drop_small_parts()
        return found.coverage.repeat(2, axis=0)[:h].repeat(2, axis=1)[:, :w]

    def _match_in_blocks(
        self, keys: FloatMap, remembered: FloatMap, labels: FloatMap
    ) -> tuple[FloatMap, FloatMap]:
        """`_match` in blocks of `_BLOCK_CELLS` cells."""
        blocks = range(0, len(keys), _BLOCK_CELLS)
        parts = [
            self._match(keys[start : start + _BLOCK_CELLS], remembered, labels) for start in blocks
        ]
        coverage, similarity = (np.concatenate(values) for values in zip(*parts, strict=True))
        return coverage, similarity

    def _match(
        self, keys: FloatMap, remembered: FloatMap, labels: FloatMap
    ) -> tuple[FloatMap, FloatMap]:
        """Coverage [n] of cells and similarity [n] of each to its most similar remembered cell."""
        pairwise = keys @ remembered.T
        similarity = pairwise.max(1)
        rows, columns = np.divmod(
            np.flatnonzero(pairwise > (similarity - _SIMILARITY_RANGE)[:, None]), pairwise.shape[1]
        )
        distance = pairwise[rows, columns] - similarity[rows]
        floor = np.exp(-_SIMILARITY_RANGE / self.settings.temperature)
        weights = np.exp(distance / self.settings.temperature) - floor
        total = np.bincount(rows, weights, len(keys))
        coverage = np.bincount(rows, weights * labels[columns], len(keys)) / total
        return coverage.astype(np.float32), similarity

    def _memory(self, features: CellFeatures, coverage: FloatMap, step: int) -> _MemoryFrame:
        """Remember the object's surroundings and every `step`-th row and column of the rest."""
        chosen = _sample(coverage, self._window(coverage))
        chosen[::step, ::step] = True
        cells = np.flatnonzero(chosen)
        return _MemoryFrame(features.keys[cells], coverage.reshape(-1)[cells].astype(np.float32))

    def _window(self, coverage: FloatMap) -> Window:
        """Box of a coverage [h, w], enlarged by the margins; the whole grid if it is empty."""
        h, w = coverage.shape
        x, y, box_w, box_h = cv2.boundingRect((coverage > 0.5).view(np.uint8))
        if box_w == 0:
            return slice(0, h), slice(0, w)
        margin = self.settings.margin_cells + round(self.settings.margin * max(box_w, box_h))
        rows = slice(max(0, y - margin), min(h, y + box_h + margin))
        return rows, slice(max(0, x - margin), min(w, x + box_w + margin))


def _sample(coverage: FloatMap, window: Window) -> BoolMap:
    """Cells of a window to query, bool [h, w]: all near the object's border, else one in four.

    A small window is queried completely.
    """
    chosen = np.zeros(coverage.shape, np.bool_)
    inside = (coverage[window] > 0.5).view(np.uint8)
    if inside.size <= _DENSE_CELLS:
        chosen[window] = True
        return chosen
    kernel = np.ones((2 * _BORDER_CELLS + 1, 2 * _BORDER_CELLS + 1), np.uint8)
    near = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, kernel).view(np.bool_)
    near[::2, ::2] = True
    chosen[window] = near
    return chosen


def _fill(values: FloatMap, queried: BoolMap) -> None:
    """Fill cells that were not queried with the weighted mean of queried neighbors, in place."""
    nearness = np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]], np.float32)
    weight = queried.astype(np.float32)
    total = cv2.filter2D(values * weight, -1, nearness, borderType=cv2.BORDER_CONSTANT)
    count = cv2.filter2D(weight, -1, nearness, borderType=cv2.BORDER_CONSTANT)
    values[~queried] = (total / np.maximum(count, 0.5))[~queried]
