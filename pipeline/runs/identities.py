"""Identities across the parts of a video: which objects of a part were in the parts before it.

The learned memory looks for the objects of earlier parts on portraits from the beginning of a part.
What it finds is matched with the objects that tracking has found there (Hungarian), by how sure the
memory is, the IoU of the masks, and the likeness of the colors: the memory alone takes one person
for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.memory.bank import REFERENCE_CELLS, MemoryBank
from maskstream.pipeline.models.networks import Networks
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.runs.portraits import (
    Colors,
    Life,
    Portrait,
    Portraits,
    likeness,
    lives_of,
)
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.tracking.recognition import (
    MemoryGrid,
    agrees,
    memory_settings,
    predict_alone,
)
from maskstream.pipeline.tracking.steps import mask_logits, working_size
from maskstream.trackers.assignment import assign
from maskstream.trackers.iou import mask_iou

KNOWN_MAX = 64
"""Objects that are looked for in a part: those that were in a part most recently."""
LIFE_MIN = 4
"""Visible frames below which an object of a part is not compared with others."""
COLORS_MIN = 0.45
"""Likeness of the colors from which two objects may be one."""
ALIKE_MIN = 0.35
"""Presence times IoU times likeness of the colors from which two objects may be one."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an identity beside the memory. colors: of its last portraits."""

    label: str
    colors: deque[Colors]

    def likeness(self, colors: Colors) -> float:
        return max((likeness(own, colors) for own in self.colors), default=0.0)


class Identities:
    """Gives the objects of the parts of one video identities that hold for all of it.

    networks: for frames of the video's size, used by nobody else. video: the whole one. At most
    `KNOWN_MAX` identities are remembered, each by `memory.references` portraits.
    """

    def __init__(self, config: PipelineConfig, networks: Networks, video: Seekable) -> None:
        working_hw = working_size(video.info.size_hw, config.tracking.flow_long_side)
        self._networks = networks
        self._video = video
        self._grid = MemoryGrid(networks.memory, networks.tracks.geometry, working_hw)
        self._bank = MemoryBank(memory_settings(config))
        self._known: dict[int, _Known] = {}  # the most recent last
        self._last = 0  # identity

    def of_part(self, part: MaskStore) -> dict[int, int]:
        """Identities of the objects of the next part, by their ids in it; new ones are numbered on.

        Raises `StoreError`, `SourceError`.
        """
        lives = lives_of(part.frame_objects())
        compared = {i: life for i, life in lives.items() if life.frames >= LIFE_MIN}
        portraits = Portraits(self._networks, self._grid, self._video, part)
        first = portraits.of({i: life.first for i, life in compared.items()})
        found = self._recognize(compared, first)
        identities = {i: found.get(i) or self._new() for i in sorted(lives)}
        for own, life in compared.items():
            known = self._known.pop(identities[own], None)
            colors = deque[Colors](maxlen=self._bank.settings.references)
            self._known[identities[own]] = known or _Known(life.label, colors)
        last = portraits.of({i: life.last for i, life in compared.items()})
        for portrait in (*first, *last):
            self._remember(identities, portrait)
        for forgotten in list(self._known)[:-KNOWN_MAX]:
            del self._known[forgotten]
        self._bank.keep_only(self._known)
        return identities

    def _new(self) -> int:
        """An identity that no object had yet."""
        self._last += 1
        if self._last > MAX_OBJECT_ID:
            raise StoreError(
                f"The parts have more than {MAX_OBJECT_ID} objects in all: let fewer be found, "
                "by seeding.score_min or seeding.max_objects."
            )
        return self._last

    def _recognize(
        self, lives: Mapping[int, Life], portraits: Iterable[Portrait]
    ) -> dict[int, int]:
        """Known identities of objects, by their ids in the part."""
        own = list(lives)
        known = [identity for identity in self._known if identity in self._bank]
        alike = np.zeros((len(known), len(own)))
        for portrait in portraits:
            alone = predict_alone(self._grid, portrait.keys, self._bank)
            for row, identity in enumerate(known):
                about = self._known[identity]
                for object_id, colors in portrait.colors.items():
                    like = about.likeness(colors)
                    if lives[object_id].label != about.label or like < COLORS_MIN:
                        continue
                    presence, logits = alone(identity)
                    mask, column = portrait.masks[object_id], own.index(object_id)
                    if agrees(presence, logits, mask):
                        score = like * presence * mask_iou(logits > 0, mask)
                        alike[row, column] = max(alike[row, column], score)
        pairs = assign(1 - alike, 1 - ALIKE_MIN).pairs
        return {own[column]: known[row] for row, column in pairs}

    def _remember(self, identities: Mapping[int, int], portrait: Portrait) -> None:
        """Remember the objects that a portrait shows well."""
        if not portrait.colors:
            return
        masks = {
            identities[i]: self._grid.probability(mask_logits(mask, self._grid.working_hw))
            for i, mask in portrait.masks.items()
        }
        remembered = self._grid.model.remember(portrait.keys, masks, REFERENCE_CELLS)
        for object_id in portrait.masks.keys() - portrait.colors.keys():
            del remembered.values[identities[object_id]]
        self._bank.add_reference(remembered)
        for object_id, colors in portrait.colors.items():
            self._known[identities[object_id]].colors.append(colors)
