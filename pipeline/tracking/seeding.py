"""Seeding: find objects without prompts by a person, a few point prompts per keyframe."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.segmenter.everything import (
    EverythingSearch,
    PointPass,
    scattered_points,
)
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.model import Features, Segmenter
from maskstream.pipeline.segmenter.proposals import (
    BoolMap,
    Proposal,
    refine,
    separate_objects,
    suppress_duplicates,
    suppress_parts,
)

_MAX_REFINED = 48  # proposals of a new shot that are decoded again with their box
_INSIDE = 0.8  # share of a mask inside a larger one from which it is a part,
_SCORE_SHARE = 0.8  # if the larger one has this share of its score
_MAX_BLOBS = 4  # moving regions that get a prompt on one keyframe


class Seeder:
    """Finds new objects where no track is, within a budget of prompts per keyframe.

    A new shot is searched completely, with a coarse and then a fine grid. Later keyframes first
    prompt untracked regions that move, then the next points of a scattered grid, which covers the
    image after some keyframes. Proposals are decoded again with their box as prompt. Both kinds of
    prompt count: a keyframe spends at most `prompts_first` or `prompts_per_keyframe`, and the next
    one continues in the grid where it stopped.
    """

    def __init__(self, segmenter: Segmenter, config: SeedingConfig) -> None:
        self._segmenter = segmenter
        self._config = config
        self._cursor = 0

    def propose_after_cut(
        self, features: Features, occupied_mask: BoolMap, max_new: int
    ) -> list[Proposal]:
        """Up to `max_new` objects of a new shot, best first, outside `occupied_mask`.

        occupied_mask: bool [4h, 4w], on the grid of the logits.
        """
        budget = self._config.prompts_first
        if max_new <= 0 or budget <= 0:
            return []
        max_refined = min(_MAX_REFINED, budget // 4)
        search = EverythingSearch(self._segmenter, features, occupied_mask, self._config)
        found = search.run(budget - max_refined)[:max_refined]
        return self._distinct(features, found, occupied_mask, max_new)

    def propose_incremental(
        self,
        features: Features,
        occupied_mask: BoolMap,
        max_new: int,
        moving: BoolMap,
        budget: int | None = None,
    ) -> list[Proposal]:
        """Up to `max_new` objects of a later keyframe, first where `moving` [4h, 4w] is set.

        budget: maximum of prompts, by default `prompts_per_keyframe`.
        """
        budget = self._config.prompts_per_keyframe if budget is None else budget
        if max_new <= 0 or budget <= 0:
            return []
        points_budget = (budget + 1) // 2  # the other half is for boxes
        side = self._config.fine_points_per_side
        points = np.concatenate(
            [self._blobs(moving & ~occupied_mask), scattered_points(side, self._cursor)]
        )
        self._cursor = (self._cursor + points_budget) % side**2
        search = EverythingSearch(
            self._segmenter, features, occupied_mask, self._config, passes=[PointPass(points)]
        )
        found = search.run(points_budget)[: budget - points_budget]
        return self._distinct(features, found, occupied_mask, max_new)

    def _distinct(
        self, features: Features, found: list[Proposal], occupied_mask: BoolMap, max_new: int
    ) -> list[Proposal]:
        """Decode again with boxes; keep confident, separate proposals without duplicates."""
        config = self._config
        refined = refine(self._segmenter, features, found)
        sure = [
            p
            for p in refined
            if p.score >= config.score_min
            and config.area_min <= (p.logits > 0).mean() <= config.area_max
        ]
        distinct = suppress_duplicates(sure, config.duplicate_iou)
        whole = suppress_parts(distinct, _INSIDE, _SCORE_SHARE)
        return separate_objects(whole, occupied_mask, config.overlap_max, max_new)

    def _blobs(self, moving: BoolMap) -> npt.NDArray[np.float32]:
        """Innermost points [n, 2] (x, y as shares of the image) of the largest blobs."""
        height, width = moving.shape
        _, labels, stats, _ = cv2.connectedComponentsWithStats(moving.view(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        area_min = self._config.area_min * moving.size
        largest = [
            i for i in np.argsort(-areas, kind="stable")[:_MAX_BLOBS] if areas[i] >= area_min
        ]
        points = np.empty((len(largest), 2), np.float32)
        for point, blob in zip(points, largest, strict=True):
            x, y, _ = deepest(labels == blob + 1)
            point[:] = (x + 0.5) / width, (y + 0.5) / height
        return points
