"""Appearance memory: an object's mask read off by how alike features are, with no training at all.

Label propagation by feature affinity (as in Jabri et al., arXiv 2006.14613, and STCN, arXiv
2106.05210, without learned heads): every cell of the present keyframe looks for the cells most like
it in remembered keyframes and takes the mean of their labels. The keyframe that a person prompted
is remembered for good; a few recent ones follow what has changed since.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

_CLIP = 0.15  # cells that are less alike by more than this have no vote

_CLEARLY = 0.05  # difference of similarity that settles whose a cell is
_UNLIKE = 1.0  # similarity of cells that have nothing to do with each other, about
_LESS_ALIKE = 0.1  # mean similarity by which a piece is another thing of the same kind
_SMALL_PART = 0.35  # share of the largest piece below which another piece is not believed
_WHOLE = 100  # cells; a larger window is not asked cell by cell
_BESIDE = 1  # cells between a piece and where its object was carried, at most
_CARRIED = 0.3  # share of a cell from which an object counts as carried there
_BORDER = 2  # cells on either side of an object's border that are asked one by one
# Rows and columns remembered of the rest of the picture, where objects may be that look alike. With
# 3 for both, the generated crossing of alike objects has a J&F of 64 instead of 69.
_REFERENCE_STEP, _RECENT_STEP = 2, 4
_MAX_CHANNELS = 128  # of a picture that OpenCV 5 resizes
_BLOCK = 256  # cells asked at once; bounds the memory that a reading takes

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class AppearanceSettings:
    """How an object is remembered and looked for.

    recent: keyframes remembered beside the prompted ones, at least `recent_interval_s` seconds
    apart. references: prompted keyframes at most. temperature: of similarities, which are the sum
    of the cosines of both strides. margin, margin_cells: how far beyond an object's box it is
    looked for and its surroundings are remembered, as a share of the box's longer side and in
    cells.
    """

    recent: int = 2
    recent_interval_s: float = 0.15
    references: int = 4
    temperature: float = 0.05
    margin: float = 0.3
    margin_cells: int = 3


@dataclass(frozen=True, slots=True)
class CellFeatures:
    """Features of a keyframe by cell: float32 [h * w, C], unit vectors side by side."""

    keys: FloatMap
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, maps: Iterable[FloatMap], grid_hw: tuple[int, int]) -> CellFeatures:
        """From maps [C, h, w] of one picture, each brought to the grid and to unit length."""
        h, w = grid_hw
        keys = []
        for features in maps:
            image = np.ascontiguousarray(features.transpose(1, 2, 0))
            if image.shape[:2] != grid_hw:
                shrink = image.shape[0] > h
                how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
                image = _resized(image, (w, h), how)
            flat = image.reshape(h * w, -1)
            length = np.sqrt(np.einsum("nc,nc->n", flat, flat)) + 1e-6
            keys.append(flat / length[:, None])
        return cls(np.concatenate(keys, axis=1), grid_hw)


def _resized(image: FloatMap, size_wh: tuple[int, int], how: int) -> FloatMap:
    """Resize [h, w, C], at most as many channels at once as OpenCV 5 takes."""
    width, height = size_wh
    parts = [
        cv2.resize(image[..., first : first + _MAX_CHANNELS], size_wh, interpolation=how)
        for first in range(0, image.shape[2], _MAX_CHANNELS)
    ]
    return np.concatenate([part.reshape(height, width, -1) for part in parts], axis=2)


@dataclass(frozen=True, slots=True)
class MemoryReadout:
    """What the memory says of an object on a keyframe.

    coverage: float32 [h, w], 0..1, zero outside the cells that were asked. similarity: float32 [h,
    w], similarity (-2..2) of every cell to the most alike remembered one, -2 where none was asked.
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
        """Cells of the object."""
        return int((self.coverage > 0.5).sum())

    def without_claimed(self, others: Iterable[MemoryReadout]) -> MemoryReadout:
        """The same without the cells that belong to others, by looks at least as much."""
        coverage = self.coverage
        for other in others:
            theirs = (other.coverage > 0.5) & (other.similarity >= self.similarity)
            coverage = np.where(theirs, 0, coverage)
        return replace(self, coverage=coverage)

    def drop_small_parts(self) -> MemoryReadout:
        """Keep the pieces that are not small beside the largest one."""
        labels, areas = self._pieces()
        if len(areas) < 2:
            return self
        return self._without(labels, 1 + np.flatnonzero(areas < _SMALL_PART * areas.max()))

    def keep_near(self, propagated: FloatMap) -> MemoryReadout:
        """Keep the pieces where the object was carried to (coverage [h, w]); all if none is there.

        Others that look alike are another object of the same kind.
        """
        labels, areas = self._pieces()
        if len(areas) < 2:
            return self
        reach = np.ones((2 * _BESIDE + 1, 2 * _BESIDE + 1), np.uint8)
        near = cv2.dilate((propagated > _CARRIED).view(np.uint8), reach).view(np.bool_)
        far = np.setdiff1d(np.arange(1, len(areas) + 1), labels[near])
        return self if len(far) == len(areas) else self._without(labels, far)

    def keep_most_similar(self) -> MemoryReadout:
        """Keep the piece that speaks most for the object, and those about as much alike.

        Of things of one kind that a picture shows, the object is more alike than the others.
        """
        labels, areas = self._pieces()
        if len(areas) < 2:
            return self
        similarity = np.bincount(labels.reshape(-1), self.similarity.reshape(-1))[1:] / areas
        best = np.argmax(areas * (similarity - _UNLIKE))
        return self._without(
            labels, 1 + np.flatnonzero(similarity < similarity[best] - _LESS_ALIKE)
        )

    def _pieces(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Numbers [h, w] of connected pieces, from 1 on, and their areas in cells."""
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (self.coverage > 0.5).view(np.uint8), connectivity=8
        )
        return np.asarray(labels, np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int32)

    def _without(
        self, labels: npt.NDArray[np.int32], pieces: npt.NDArray[np.intp]
    ) -> MemoryReadout:
        return replace(self, coverage=np.where(np.isin(labels, pieces), 0, self.coverage))


def resolve_overlaps(readouts: Mapping[int, MemoryReadout]) -> dict[int, MemoryReadout]:
    """Take cells that several objects claim from those they are clearly less alike."""
    claims = {
        key: np.where(readout.coverage > 0.5, readout.similarity, -np.inf)
        for key, readout in readouts.items()
    }
    if len(claims) < 2:
        return dict(readouts)
    best = np.max(list(claims.values()), axis=0)
    return {
        key: replace(readout, coverage=np.where(claims[key] < best - _CLEARLY, 0, readout.coverage))
        for key, readout in readouts.items()
    }


@dataclass(frozen=True, slots=True)
class _MemoryFrame:
    """Cells of one keyframe, the object's and those around it: keys [n, C], labels [n] 0..1."""

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
    """What the objects of one stream look like; bounded per object."""

    def __init__(self, settings: AppearanceSettings) -> None:
        self.settings = settings
        self._objects: dict[int, _ObjectMemory] = {}

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._objects

    def add_reference(self, object_id: int, features: CellFeatures, coverage: FloatMap) -> None:
        """Remember an object for good, as a person or the seeder gave it; coverage [h, w] 0..1."""
        known = self._objects.get(object_id)
        if known is None:
            references: deque[_MemoryFrame] = deque(maxlen=self.settings.references)
            known = _ObjectMemory(references, deque(maxlen=self.settings.recent))
            self._objects[object_id] = known
        known.references.append(self._memory(features, coverage, _REFERENCE_STEP))

    def add_recent(
        self, object_id: int, features: CellFeatures, coverage: FloatMap, now_s: float
    ) -> None:
        """Remember an object for a few keyframes, as it was tracked; not too often.

        Keyframes that follow each other closely repeat each other's errors.
        """
        known = self._objects[object_id]
        if now_s - known.last_recent_s >= self.settings.recent_interval_s:
            known.recent.append(self._memory(features, coverage, _RECENT_STEP))
            known.last_recent_s = now_s

    def forget(self, keep: Iterable[int]) -> None:
        """Forget all objects but these."""
        kept = set(keep)
        self._objects = {key: value for key, value in self._objects.items() if key in kept}

    def read(
        self, object_id: int, features: CellFeatures, around: FloatMap | None
    ) -> MemoryReadout:
        """Look for an object where `around` [h, w] (coverage 0..1) has it, and near there.

        None: anywhere, that is first on every other row and column, then around what was found.
        """
        h, w = features.grid_hw
        memories = list(self._objects[object_id].all())
        keys = np.concatenate([m.keys for m in memories])
        labels = np.concatenate([m.labels for m in memories])
        coverage, similarities = np.zeros(h * w, np.float32), np.full(h * w, -2, np.float32)
        near = self._coarse_read(features, keys, labels) if around is None else around
        if (near > 0.5).any():
            window = self._window(near)
            asked = _sample(near, window)
            cells = np.flatnonzero(asked)
            coverage[cells], similarities[cells] = self._match_in_blocks(
                features.keys[cells], keys, labels
            )
            if not asked[window].all():
                _fill(coverage.reshape(h, w)[window], asked[window])
                _fill(similarities.reshape(h, w)[window], asked[window])
        found = MemoryReadout(coverage.reshape(h, w), similarities.reshape(h, w)).drop_small_parts()
        return found.keep_most_similar() if around is None else found.keep_near(around)

    def _coarse_read(self, features: CellFeatures, keys: FloatMap, labels: FloatMap) -> FloatMap:
        """Coverage [h, w] of an object looked for on every other row and column."""
        h, w = features.grid_hw
        asked = np.arange(h * w).reshape(h, w)[::2, ::2]
        coverage, similarity = self._match_in_blocks(features.keys[asked.reshape(-1)], keys, labels)
        shape = asked.shape
        found = MemoryReadout(coverage.reshape(shape), similarity.reshape(shape)).drop_small_parts()
        return found.coverage.repeat(2, axis=0)[:h].repeat(2, axis=1)[:, :w]

    def _match_in_blocks(
        self, keys: FloatMap, remembered: FloatMap, labels: FloatMap
    ) -> tuple[FloatMap, FloatMap]:
        """As `_match`, a block of cells at a time."""
        blocks = range(0, len(keys), _BLOCK)
        parts = [self._match(keys[start : start + _BLOCK], remembered, labels) for start in blocks]
        coverage, similarity = (np.concatenate(values) for values in zip(*parts, strict=True))
        return coverage, similarity

    def _match(
        self, keys: FloatMap, remembered: FloatMap, labels: FloatMap
    ) -> tuple[FloatMap, FloatMap]:
        """Coverage [n] of cells and how much each is like the most alike remembered one."""
        pairwise = keys @ remembered.T
        similarity = pairwise.max(1)
        rows, columns = np.divmod(
            np.flatnonzero(pairwise > (similarity - _CLIP)[:, None]), pairwise.shape[1]
        )
        distance = pairwise[rows, columns] - similarity[rows]
        floor = np.exp(-_CLIP / self.settings.temperature)
        weights = np.exp(distance / self.settings.temperature) - floor
        total = np.bincount(rows, weights, len(keys))
        coverage = np.bincount(rows, weights * labels[columns], len(keys)) / total
        return coverage.astype(np.float32), similarity

    def _memory(self, features: CellFeatures, coverage: FloatMap, step: int) -> _MemoryFrame:
        """The object's surroundings, and every `step`-th row and column of the rest."""
        chosen = _sample(coverage, self._window(coverage))
        chosen[::step, ::step] = True
        cells = np.flatnonzero(chosen)
        return _MemoryFrame(features.keys[cells], coverage.reshape(-1)[cells].astype(np.float32))

    def _window(self, coverage: FloatMap) -> Window:
        """The box of an object [h, w], enlarged by the margins; all if it is nowhere."""
        h, w = coverage.shape
        x, y, box_w, box_h = cv2.boundingRect((coverage > 0.5).view(np.uint8))
        if box_w == 0:
            return slice(0, h), slice(0, w)
        margin = self.settings.margin_cells + round(self.settings.margin * max(box_w, box_h))
        rows = slice(max(0, y - margin), min(h, y + box_h + margin))
        return rows, slice(max(0, x - margin), min(w, x + box_w + margin))


def _sample(coverage: FloatMap, window: Window) -> BoolMap:
    """The cells of a window [h, w] that tell most: all near the object's border, else one in four.

    A small window is taken whole.
    """
    chosen = np.zeros(coverage.shape, np.bool_)
    inside = (coverage[window] > 0.5).view(np.uint8)
    if inside.size <= _WHOLE:
        chosen[window] = True
        return chosen
    ring = np.ones((2 * _BORDER + 1, 2 * _BORDER + 1), np.uint8)
    near = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, ring).view(np.bool_)
    near[::2, ::2] = True
    chosen[window] = near
    return chosen


def _fill(values: FloatMap, asked: BoolMap) -> None:
    """Give cells that were not asked the mean of those beside them that were, in place."""
    nearness = np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]], np.float32)
    weight = asked.astype(np.float32)
    total = cv2.filter2D(values * weight, -1, nearness, borderType=cv2.BORDER_CONSTANT)
    count = cv2.filter2D(weight, -1, nearness, borderType=cv2.BORDER_CONSTANT)
    values[~asked] = (total / np.maximum(count, 0.5))[~asked]
