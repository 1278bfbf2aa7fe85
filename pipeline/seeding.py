"""Seeding: looking for objects that nobody pointed at, a few prompts a keyframe."""

from __future__ import annotations

from pipeline.config import SeedingConfig
from pipeline.segmenter.everything import (
    BoolMap,
    EverythingSearch,
    Proposal,
    refine,
    scattered_points,
    separate_objects,
    suppress_duplicates,
)
from pipeline.segmenter.model import Features, Segmenter

MOST_REFINED = 48  # proposals of one keyframe that are asked again with their box


class Seeder:
    """Looks for new objects where no track is, within the budget of a keyframe."""

    def __init__(self, segmenter: Segmenter, config: SeedingConfig) -> None:
        self._segmenter = segmenter
        self._config = config
        self._cursor = 0

    def search(
        self, features: Features, covered: BoolMap, room: int, *, fresh: bool
    ) -> list[Proposal]:
        """Up to `room` objects, best first, outside `covered` (bool [4h, 4w], the logits' grid).

        fresh: nothing is known of this shot yet, so all points are asked; else a few, in turn.
        """
        config = self._config
        budget = config.prompts_first if fresh else config.prompts_per_keyframe
        if room <= 0 or budget <= 0:
            return []
        passes = None
        if not fresh:
            passes = [scattered_points(config.fine_side, self._cursor)]
            self._cursor = (self._cursor + budget) % config.fine_side**2
        search = EverythingSearch(self._segmenter, features, covered, config, passes=passes)
        asked_again = refine(self._segmenter, features, search.run(budget)[:MOST_REFINED])
        sure = [p for p in asked_again if p.score >= config.score_min]
        distinct = suppress_duplicates(sure, config.duplicate_iou)
        return separate_objects(distinct, covered, config.overlap_max, room)
