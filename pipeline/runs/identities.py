"""Identities across the parts of a video: which objects of a part were in the parts before it.

An object is shown to the learned memory once near its first and once near its last frame in a part
(*portraits*). The memory looks for the objects of earlier parts on the first portraits of a part,
and what it finds is matched with the objects that tracking has found there (Hungarian).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.memory.bank import REFERENCE_CELLS, MemoryBank
from maskstream.pipeline.memory.model import FrameKeys
from maskstream.pipeline.models.networks import Networks
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import FrameObjects, MaskStore
from maskstream.pipeline.tracking.recognition import (
    MemoryGrid,
    agrees,
    memory_settings,
    predict_alone,
)
from maskstream.pipeline.tracking.steps import mask_logits, working_size
from maskstream.pipeline.types import ObjectResult
from maskstream.trackers.assignment import assign
from maskstream.trackers.iou import mask_iou
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import BoolMap

KNOWN_MAX = 64
"""Objects that are looked for in a part: those that were in a part most recently."""
_NEAR = 16  # visible frames at each end of an object's life, of which its portraits are chosen
_LIFE_MIN = 4  # visible frames below which an object is not compared with others
_AS_GOOD = 0.8  # of the best portrait's quality: frames that may show several objects at once
_SCORE_MIN = 0.3  # presence times IoU from which two objects may be one


@dataclass(frozen=True, slots=True)
class _Portraits:
    """A frame of a part: its keys, and the masks of its objects at the working resolution.

    good: the objects that it shows well.
    """

    keys: FrameKeys
    masks: Mapping[int, BoolMap]
    good: Collection[int]


@dataclass(slots=True)
class _Life:
    """The visible frames of an object within a part: row and quality of the first and last ones."""

    label: str = ""
    frames: int = 0
    first: list[tuple[int, float]] = field(default_factory=list)
    last: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_NEAR))

    def add(self, row: int, seen: ObjectResult) -> None:
        quality = seen.area * seen.score
        self.label = seen.label or self.label
        self.frames += 1
        self.last.append((row, quality))
        if len(self.first) < _NEAR:
            self.first.append((row, quality))


class Identities:
    """Gives the objects of the parts of one video identities that hold for all of it.

    networks: for frames of the video's size, used by nobody else. video: the whole one.
    """

    def __init__(self, config: PipelineConfig, networks: Networks, video: Seekable) -> None:
        frame_hw = video.info.size_hw
        self._networks = networks
        self._video = video
        self._working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        self._grid = MemoryGrid(networks.memory, networks.tracks.geometry, self._working_hw)
        self._bank = MemoryBank(memory_settings(config))
        self._labels: dict[int, str] = {}  # by identity, the most recent last
        self._next = 1

    def of_part(self, part: MaskStore) -> dict[int, int]:
        """Identities of the objects of the next part, by their ids in it.

        Objects of the first part keep their ids. Raises `StoreError`, `SourceError`.
        """
        lives = _lives(part.frame_objects())
        compared = {i: life for i, life in lives.items() if life.frames >= _LIFE_MIN}
        first = self._portraits(part, {i: life.first for i, life in compared.items()})
        found = self._recognize(compared, first) if self._labels else {}
        identities = {i: found.get(i) or self._new(i) for i in sorted(lives)}
        last = self._portraits(part, {i: life.last for i, life in compared.items()})
        self._remember(identities, {**first, **last}.values())
        for own, identity in identities.items():
            self._labels.pop(identity, None)
            self._labels[identity] = lives[own].label
        forgotten = list(islice(self._labels, max(0, len(self._labels) - KNOWN_MAX)))
        for identity in forgotten:
            del self._labels[identity]
        self._bank.keep_only(self._labels)
        return identities

    def _new(self, own: int) -> int:
        """An identity that no object had; `own` in the first part."""
        identity = self._next if self._labels else own
        if max(identity, self._next) > MAX_OBJECT_ID:
            raise StoreError(
                f"The parts have more than {MAX_OBJECT_ID} objects in all; raise "
                "seeding.score_min or lower seeding.max_objects."
            )
        self._next = max(self._next, identity) + 1
        return identity

    def _portraits(
        self, part: MaskStore, ends: Mapping[int, Iterable[tuple[int, float]]]
    ) -> dict[int, _Portraits]:
        """Frames, by row, that show every object well, as few as possible."""
        good = {i: _good_rows(end) for i, end in ends.items()}
        found = {}
        for row in _cover(good):
            result = part.frame(row)
            features = self._networks.tracks.encode(self._video.frame(result.index))
            masks = {
                o.id: mask_logits(result.mask(o.id), self._working_hw) > 0
                for o in result.objects
                if o.area
            }
            shown = {i: mask for i, mask in masks.items() if mask.any()}
            well = {i for i in shown if row in good.get(i, ())}
            found[row] = _Portraits(self._grid.keys_of(features), shown, well)
        return found

    def _recognize(
        self, lives: Mapping[int, _Life], portraits: Mapping[int, _Portraits]
    ) -> dict[int, int]:
        """Known identities of objects, by their ids in the part."""
        own = list(lives)
        known = [identity for identity in self._labels if identity in self._bank]
        score = np.zeros((len(known), len(own)))
        for portrait in portraits.values():
            alone = predict_alone(self._grid, portrait.keys, self._bank)
            for row, identity in enumerate(known):
                presence, logits = alone(identity)
                for object_id in portrait.good:
                    mask, column = portrait.masks[object_id], own.index(object_id)
                    same_label = lives[object_id].label == self._labels[identity]
                    if same_label and agrees(presence, logits, mask):
                        agreement = presence * mask_iou(logits > 0, mask)
                        score[row, column] = max(score[row, column], agreement)
        pairs = assign(1 - score, 1 - _SCORE_MIN).pairs
        return {own[column]: known[row] for row, column in pairs}

    def _remember(self, identities: Mapping[int, int], portraits: Iterable[_Portraits]) -> None:
        for portrait in portraits:
            if not portrait.good:
                continue
            masks = {
                identities[i]: self._grid.probability(mask_logits(mask, self._working_hw))
                for i, mask in portrait.masks.items()
            }
            remembered = self._grid.model.remember(portrait.keys, masks, REFERENCE_CELLS)
            for i in portrait.masks.keys() - portrait.good:
                del remembered.values[identities[i]]
            self._bank.add_reference(remembered)


def _lives(frames: Iterable[FrameObjects]) -> dict[int, _Life]:
    lives: dict[int, _Life] = {}
    for row, frame in enumerate(frames):
        for seen in frame.objects:
            life = lives.setdefault(seen.id, _Life())
            if seen.area and seen.state in (TrackState.TRACKED, TrackState.REENTERED):
                life.add(row, seen)
    return lives


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
