"""Seeding: looking for objects that nobody pointed at, a few prompts a keyframe."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.segmenter.everything import (
    BoolMap,
    EverythingSearch,
    PointPass,
    Proposal,
    refine,
    scattered_points,
    separate_objects,
    suppress_duplicates,
    suppress_parts,
)
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.model import Features, Segmenter

_MAX_REFINED = 48  # proposals of a fresh shot that are asked again
_INSIDE = 0.8  # share of a mask in a larger one that makes it a part,
_AS_SURE = 0.8  # if the larger has this share of its score
_MAX_BLOBS = 4  # moving places that are asked about on one keyframe


class Seeder:
    """Looks for new objects where no track is, within the budget of a keyframe.

    A fresh shot is searched whole, coarsely and then finely. Later keyframes first ask where
    something moves that is not tracked, then a few points of a grid in turn, so that everywhere has
    been asked after a while. What answers is asked again with its box. Both kinds of question are
    counted: a keyframe spends at most `prompts_first` or `prompts_per_keyframe`, and the next one
    goes on in the grid where it stopped.
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
        again = min(_MAX_REFINED, budget // 4)
        search = EverythingSearch(self._segmenter, features, occupied_mask, self._config)
        return self._distinct(features, search.run(budget - again)[:again], occupied_mask, max_new)

    def propose_incremental(
        self,
        features: Features,
        occupied_mask: BoolMap,
        max_new: int,
        moving: BoolMap,
        budget: int | None = None,
    ) -> list[Proposal]:
        """The same on a later keyframe, of which nothing but `moving` [4h, 4w] is known.

        budget: prompts at most, `prompts_per_keyframe` if not given.
        """
        budget = self._config.prompts_per_keyframe if budget is None else budget
        if max_new <= 0 or budget <= 0:
            return []
        ask = (budget + 1) // 2  # the other half asks again
        side = self._config.fine_points_per_side
        points = np.concatenate(
            [self._blobs(moving & ~occupied_mask), scattered_points(side, self._cursor)]
        )
        self._cursor = (self._cursor + ask) % side**2
        search = EverythingSearch(
            self._segmenter, features, occupied_mask, self._config, passes=[PointPass(points)]
        )
        found = search.run(ask)[: budget - ask]
        return self._distinct(features, found, occupied_mask, max_new)

    def _distinct(
        self, features: Features, found: list[Proposal], occupied_mask: BoolMap, max_new: int
    ) -> list[Proposal]:
        """Ask again with boxes; keep what is sure, separate and not a duplicate."""
        config = self._config
        asked_again = refine(self._segmenter, features, found)
        sure = [
            p
            for p in asked_again
            if p.score >= config.score_min
            and config.area_min <= (p.logits > 0).mean() <= config.area_max
        ]
        distinct = suppress_duplicates(sure, config.duplicate_iou)
        whole = suppress_parts(distinct, _INSIDE, _AS_SURE)
        return separate_objects(whole, occupied_mask, config.overlap_max, max_new)

    def _blobs(self, moving: BoolMap) -> npt.NDArray[np.float32]:
        """Deepest points [n, 2] (x, y as shares of the picture) of the largest blobs."""
        height, width = moving.shape
        _, labels, stats, _ = cv2.connectedComponentsWithStats(moving.view(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        least = self._config.area_min * moving.size
        largest = [i for i in np.argsort(-areas, kind="stable")[:_MAX_BLOBS] if areas[i] >= least]
        points = np.empty((len(largest), 2), np.float32)
        for point, blob in zip(points, largest, strict=True):
            x, y, _ = deepest(labels == blob + 1)
            point[:] = (x + 0.5) / width, (y + 0.5) / height
        return points
