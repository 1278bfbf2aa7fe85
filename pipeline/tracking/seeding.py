"""Seeding: find objects without prompts by a person, a few point prompts per keyframe."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.segmenter.everything import (
    EverythingSearch,
    PointPass,
    coarse_points,
)
from maskstream.pipeline.segmenter.found_masks import FoundMasks
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.model import Features, Segmenter
from maskstream.pipeline.segmenter.proposals import (
    BoolMap,
    Proposal,
    ScoredBoxes,
    decode_boxes,
    refine,
    separate_objects,
    suppress_duplicates,
    suppress_parts,
)
from maskstream.trackers.iou import box_iou

_MAX_REFINED = 48  # proposals of a new shot that are decoded again with their box
_INSIDE = 0.8  # share of a mask inside a larger one from which it is a part,
_SCORE_SHARE = 0.8  # if the larger one has this share of its score
_FILLED = 0.4  # share of a box covered by tracks from which it is no prompt
_MAX_BLOBS = 4  # moving regions that get a prompt on one keyframe


def scattered_points(side: int, start: int) -> npt.NDArray[np.float32]:
    """Points of a side x side grid in a fixed scattered order, starting with the `start`-th.

    A stream that prompts a few of them on every keyframe soon covers the whole image.
    """
    order = np.random.default_rng(0).permutation(side * side)
    return np.asarray(coarse_points(side)[np.roll(order, -start)], np.float32)


class Seeder:
    """Finds new objects where no track is, within a budget of prompts per keyframe.

    With boxes of the objectness head, these are the prompts. On a new shot a grid of half as many
    points a side as the coarse one is decoded where they gave no mask; on later keyframes regions
    that move and that they did not answer. A later keyframe spends half of its prompts on boxes,
    and on none that the one before it decoded, so that others have their turn.

    Without boxes, a new shot is searched completely, with a coarse and then a fine grid. Later
    keyframes first prompt untracked regions that move, then the next points of a scattered grid,
    which covers the image after some keyframes. What points find is decoded again with its box.

    A segmenter that finds all masks when it encodes (FastSAM) gets no prompts: those are the
    proposals of every keyframe.

    Every prompt counts: a keyframe spends at most `prompts_first` or `prompts_per_keyframe`, and
    the next one continues in the grid where it stopped.
    """

    def __init__(self, segmenter: Segmenter, config: SeedingConfig) -> None:
        self._segmenter = segmenter
        self._config = config
        self._cursor = 0
        self._decoded = np.zeros((0, 4), np.float32)  # boxes of the last keyframe

    def propose_after_cut(
        self,
        features: Features,
        occupied_mask: BoolMap,
        max_new: int,
        boxes: ScoredBoxes | None = None,
    ) -> list[Proposal]:
        """Up to `max_new` objects of a new shot, best first, outside `occupied_mask`.

        occupied_mask: bool [4h, 4w], on the grid of the logits. boxes: of the objectness head.
        """
        if isinstance(features, FoundMasks):
            return self._choose(features.proposals(), occupied_mask, max_new)
        budget = self._config.prompts_first
        if max_new <= 0 or budget <= 0:
            return []
        if boxes is not None:
            points = coarse_points(max(1, self._config.coarse_points_per_side // 2))
            return self._from_boxes(features, occupied_mask, max_new, boxes, points, budget)
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
        boxes: ScoredBoxes | None = None,
    ) -> list[Proposal]:
        """Up to `max_new` objects of a later keyframe, first where `moving` [4h, 4w] is set.

        budget: maximum of prompts, by default `prompts_per_keyframe`. boxes: of the objectness
        head.
        """
        if isinstance(features, FoundMasks):
            return self._choose(features.proposals(), occupied_mask, max_new)
        budget = self._config.prompts_per_keyframe if budget is None else budget
        if max_new <= 0 or budget <= 0:
            return []
        if boxes is not None:
            points = self._blobs(moving & ~occupied_mask)
            fresh = boxes[~self._decoded_before(boxes)]
            limit = (budget + 1) // 2
            return self._from_boxes(features, occupied_mask, max_new, fresh, points, budget, limit)
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

    def _from_boxes(
        self,
        features: Features,
        occupied_mask: BoolMap,
        max_new: int,
        boxes: ScoredBoxes,
        points: npt.NDArray[np.float32],
        budget: int,
        max_boxes: int | None = None,
    ) -> list[Proposal]:
        """Decode sure boxes that no track fills, then points that their masks do not cover."""
        prompts = boxes[boxes.scores >= self._config.box_score_min]
        prompts = prompts[~self._filled(prompts, occupied_mask)][: max_boxes or budget]
        self._decoded = prompts.boxes_xyxy
        found = decode_boxes(self._segmenter, features, prompts)
        covered = occupied_mask.copy()
        for proposal in found:
            covered |= proposal.logits > 0
        left = (budget - len(prompts)) // 2  # what a point finds is decoded again with its box
        if left and len(points):
            search = EverythingSearch(
                self._segmenter, features, covered, self._config, passes=[PointPass(points)]
            )
            found += refine(self._segmenter, features, search.run(left))
        return self._choose(found, occupied_mask, max_new)

    def _decoded_before(self, boxes: ScoredBoxes) -> BoolMap:
        """Which boxes were decoded on the last keyframe, bool [N]; others have their turn."""
        overlap = box_iou(boxes.boxes_xyxy, self._decoded)
        return np.asarray(overlap.max(1, initial=0) > self._config.duplicate_iou)

    def _filled(self, boxes: ScoredBoxes, occupied_mask: BoolMap) -> BoolMap:
        """Which boxes are mostly covered by tracks, bool [N]."""
        geometry = self._segmenter.geometry
        scale = np.tile(np.array(geometry.scale_xy) / geometry.cell, 2)
        corners = (boxes.boxes_xyxy * scale).astype(int)
        shares = [occupied_mask[y0 : y1 + 1, x0 : x1 + 1].mean() for x0, y0, x1, y1 in corners]
        return np.array(shares) > _FILLED

    def _distinct(
        self, features: Features, found: list[Proposal], occupied_mask: BoolMap, max_new: int
    ) -> list[Proposal]:
        """Decode again with boxes; keep confident, separate proposals without duplicates."""
        return self._choose(refine(self._segmenter, features, found), occupied_mask, max_new)

    def _choose(
        self, found: list[Proposal], occupied_mask: BoolMap, max_new: int
    ) -> list[Proposal]:
        """Keep confident, separate proposals without duplicates, `max_new` at most."""
        config = self._config
        sure = [
            p
            for p in found
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
