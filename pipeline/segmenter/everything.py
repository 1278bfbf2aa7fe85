"""Hierarchical everything mode: find objects without prompts, in two passes of a point grid.

TinySAM's strategy (arXiv 2312.13789, section 3.4): a coarse grid first; where it was answered with
confidence nothing more is asked; a fine grid in what is left. Here the area already covered by live
tracks counts as answered from the start, all judging is done on low-resolution logits, and the work
is a generator, so that a caller can spend a budget and stop or go on later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config import SeedingConfig
from pipeline.segmenter.geometry import GRID_STRIDE, FloatMap, boxes_of
from pipeline.segmenter.model import Features, PromptBatch, Segmenter, stability

BATCH = 32  # prompts decoded together
BoolMap = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object found without a prompt. logits: float32 [4h, 4w]; iou, stability: 0..1."""

    logits: FloatMap
    iou: float
    stability: float

    @property
    def score(self) -> float:
        """Confidence 0..1."""
        return self.iou * self.stability


def coarse_points(side: int) -> npt.NDArray[np.float32]:
    """Points [side², 2] at the centres of a side x side grid, (x, y) as shares of the picture."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(centres, centres)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def fine_points(coarse_side: int, fine_side: int) -> npt.NDArray[np.float32]:
    """The second pass: a stencil of fine strides around every coarse point but the point itself.

    With a ratio of 4 the offsets are -1, 0, 1, 2 strides, as in TinySAM's release.
    """
    ratio = fine_side // coarse_side
    if ratio < 2:
        return np.zeros((0, 2), np.float32)
    steps = np.arange(ratio) - (ratio // 2 - 1)
    dx, dy = np.meshgrid(steps, steps)
    offsets = np.stack([dx.ravel(), dy.ravel()], axis=1)
    offsets = offsets[(offsets != 0).any(1)] / np.float32(fine_side)
    points = (coarse_points(coarse_side)[:, None] + offsets[None]).reshape(-1, 2)
    inside = ((points >= 0) & (points < 1)).all(1)
    return np.asarray(points[inside], np.float32)


def scattered_points(side: int, start: int) -> npt.NDArray[np.float32]:
    """The points of a side x side grid in a fixed scattered order, beginning with the `start`-th.

    A stream that asks a few of them on every keyframe has soon asked everywhere.
    """
    order = np.random.default_rng(0).permutation(side * side)
    return np.asarray(coarse_points(side)[np.roll(order, -start)], np.float32)


class EverythingSearch:
    """One search over one encoded frame.

    covered: bool [4h, 4w], where nothing needs to be asked (live tracks). passes: the points of
    each pass, the hierarchical coarse and fine ones if not given. Iterate over `steps` and stop
    whenever the budget is spent; `found` gives the proposals so far, duplicates removed.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        features: Features,
        covered: BoolMap,
        config: SeedingConfig,
        *,
        passes: Sequence[npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._segmenter = segmenter
        self._features = features
        self._config = config
        self._passes = passes or (
            coarse_points(config.coarse_side),
            fine_points(config.coarse_side, config.fine_side),
        )
        self.done = covered.copy()
        self._proposals: list[Proposal] = []

    def steps(self) -> Iterator[int]:
        """Decode batch after batch; yields the number of prompts each batch cost."""
        for points in self._passes:
            confident: list[Proposal] = []
            waiting = points
            while len(waiting):
                waiting = waiting[~self._is_done(waiting)]
                batch, waiting = waiting[:BATCH], waiting[BATCH:]
                if len(batch):
                    confident += self._ask(batch)
                    yield len(batch)
            self._proposals += confident
            for proposal in confident:
                self.done |= proposal.logits > self._config.done_logit

    def run(self, budget: int) -> list[Proposal]:
        """Spend at most about `budget` prompts (whole batches) and return what was found."""
        for cost in self.steps():
            budget -= cost
            if budget <= 0:
                break
        return self.found()

    def found(self) -> list[Proposal]:
        """Proposals, best first, without duplicates (IoU of masks, not of boxes)."""
        return suppress_duplicates(self._proposals, self._config.duplicate_iou)

    def _is_done(self, points: npt.NDArray[np.float32]) -> BoolMap:
        cells = self._cells(points)
        return np.asarray(self.done[cells[:, 1], cells[:, 0]])

    def _cells(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        geometry = self._segmenter.geometry
        valid = np.array(geometry.valid_hw[::-1]) / GRID_STRIDE
        limit = np.array(geometry.grid_hw[::-1]) - 1
        return np.asarray(np.minimum((points * valid).astype(np.intp), limit))

    def _ask(self, points: npt.NDArray[np.float32]) -> list[Proposal]:
        config = self._config
        geometry = self._segmenter.geometry
        pixels = points * np.array(geometry.frame_hw[::-1], np.float32)
        decoded = self._segmenter.decode(self._features, PromptBatch.points(pixels[:, None]))
        logits = decoded.masks[:, 1:].reshape(-1, *decoded.masks.shape[2:])
        iou = decoded.iou[:, 1:].reshape(-1)
        kept = np.flatnonzero(iou >= config.iou_min)
        logits, iou = logits[kept], iou[kept]
        steady = stability(logits, config.stability_offset)
        area = (logits > 0).mean((-2, -1))
        good = (
            (steady >= config.stability_min) & (area >= config.area_min) & (area <= config.area_max)
        )
        return [Proposal(logits[i], float(iou[i]), float(steady[i])) for i in np.flatnonzero(good)]


def refine(
    segmenter: Segmenter, features: Features, proposals: Sequence[Proposal]
) -> list[Proposal]:
    """Ask again with the box of every proposal: the box's answer is better than the point's.

    The new proposal's stability is the IoU of both answers: what is an object to one prompt and
    another thing to the next is none. Costs one prompt a proposal.
    """
    if not proposals:
        return []
    scale = np.tile(GRID_STRIDE / np.array(segmenter.geometry.scale_xy), 2)
    asked = np.stack([p.logits > 0 for p in proposals])
    decoded = segmenter.decode(features, PromptBatch.boxes(boxes_of(asked) * scale))
    answers = decoded.masks[:, 0] > 0
    overlap = (asked & answers).sum((1, 2))
    agreement = overlap / np.maximum((asked | answers).sum((1, 2)), 1)
    return [
        Proposal(decoded.masks[i, 0], float(decoded.iou[i, 0]), float(agreement[i]))
        for i in range(len(proposals))
    ]


def suppress_duplicates(proposals: list[Proposal], iou_max: float) -> list[Proposal]:
    """Keep the best of every group of masks that overlap by more than `iou_max`; best first."""
    if not proposals:
        return []
    ordered = sorted(proposals, key=lambda p: -p.score)
    flat = np.stack([p.logits > 0 for p in ordered]).reshape(len(ordered), -1).astype(np.float32)
    overlap = flat @ flat.T
    area = flat.sum(1)
    iou = overlap / np.maximum(area[:, None] + area[None] - overlap, 1)
    kept: list[int] = []
    for i in range(len(ordered)):
        if not any(iou[i, j] > iou_max for j in kept):
            kept.append(i)
    return [ordered[i] for i in kept]


def separate_objects(
    proposals: list[Proposal], covered: BoolMap, overlap_max: float, limit: int
) -> list[Proposal]:
    """Admit proposals that are neither part of, nor cover, what is covered or admitted already."""
    admitted: list[Proposal] = []
    taken = covered.copy()
    for proposal in proposals:
        if len(admitted) >= limit:
            break
        mask = proposal.logits > 0
        if (mask & taken).sum() <= overlap_max * mask.sum():
            admitted.append(proposal)
            taken |= mask
    return admitted
