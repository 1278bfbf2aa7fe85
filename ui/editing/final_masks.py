"""Masks as shown and exported: tracked ones, newer prompts, and the order of overlaps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.pipeline.exports.edges import Edges
from maskstream.pipeline.results.edits import (
    add_object,
    keep_objects,
    prompted_object,
    stack_objects,
)
from maskstream.pipeline.types import FrameResult, SourceInfo
from maskstream.ui.editing.entries import PromptedEntry
from maskstream.ui.editing.mask_files import MaskFiles
from maskstream.ui.editing.session import SessionState
from maskstream.ui.editing.track_plan import PendingSegment

_PROMPTED_SCORE = 1.0


@dataclass(frozen=True, slots=True)
class FinalMasks:
    """Masks of a session at one moment.

    newer: prompts whose masks are newer than what is tracked, by frame.
    """

    state: SessionState
    newer: Mapping[int, Sequence[PromptedEntry]]
    info: SourceInfo
    files: MaskFiles

    @classmethod
    def of(
        cls,
        state: SessionState,
        stale: Iterable[PendingSegment],
        info: SourceInfo,
        files: MaskFiles,
    ) -> FinalMasks:
        """Take the masks of a state; stale: its segments to be tracked."""
        newer: dict[int, list[PromptedEntry]] = {}
        for pending in stale:
            if pending.first == pending.whole.left:
                anchor = state.objects[pending.object].anchors[pending.first]
                newer.setdefault(pending.first, []).append(anchor)
        return cls(state, newer, info, files)

    @property
    def fingerprint(self) -> str:
        """Of everything that an export depends on, apart from its own options."""
        state = self.state
        depends = [
            state.store,
            [state.first, state.last],
            [
                [known.id, known.name, known.locked, known.edges.model_dump()]
                for known in state.objects.values()
            ],
            state.order,
            sorted((a.frame, a.object, a.mask) for each in self.newer.values() for a in each),
        ]
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]

    @property
    def object_edges(self) -> dict[int, Edges]:
        """Edges of the objects that have their own, by id."""
        return {
            known.id: Edges(known.edges.soft, known.edges.feather, known.edges.grow)
            for known in self.state.objects.values()
            if known.edges.own
        }

    def at(self, index: int, tracked: FrameResult | None) -> FrameResult | None:
        """Final masks of a frame from its tracked ones; None if there are none at all."""
        objects = self.state.objects
        anchors = self.newer.get(index, ())
        if tracked is None:
            anchors = [o.anchors[index] for o in objects.values() if index in o.anchors]
            if not anchors:
                return None
            empty = np.zeros(self.info.size_hw, np.uint16)
            tracked = FrameResult(index, None, self.info.time_base, True, empty, ())
        result = keep_objects(tracked, set(objects) - {anchor.object for anchor in anchors})
        for anchor in anchors:
            if anchor.handover is not None:
                mask = self.files.get(anchor.mask)
                found = prompted_object(anchor.object, mask, _PROMPTED_SCORE)
                result = add_object(result, found, mask)
        return stack_objects(result, self._bottom_up(result)) if result.covered else result

    def _bottom_up(self, result: FrameResult) -> list[int]:
        """Ids of a frame's objects as they lie on each other, the last on top.

        Locked objects are above others. Among these the person's order counts, or else prompted
        objects are above tracked ones, and smaller ones above larger ones.
        """
        objects, order = self.state.objects, self.state.order
        areas = {o.id: int(result.mask(o.id).sum()) for o in result.objects}

        def rank(object_id: int) -> tuple[bool, float, bool, int]:
            known = objects[object_id]
            place = -order.index(object_id) if object_id in order else 1
            prompted = result.index in known.anchors
            return known.locked, place if order else 0, prompted, -areas[object_id]

        return sorted(areas, key=rank)
