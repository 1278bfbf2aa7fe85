"""Hierarchical everything mode: find objects without prompts, by two passes of a point grid.

TinySAM's strategy (arXiv 2312.13789, section 3.4): a coarse grid first; a fine grid only where the
coarse one found nothing confident. Here the area of live tracks is excluded from the start, all
filtering is done on low-resolution logits, and the search is a generator, so that a caller can stop
at a budget and continue later.

`find_everything` is the published algorithm for a single image; it also offers SAM's plain grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.segmenter.found_masks import FoundMasks
from maskstream.pipeline.segmenter.model import (
    Features,
    ModelCard,
    PromptBatch,
    Segmenter,
    stability,
)
from maskstream.pipeline.segmenter.prompt_batches import BATCH as DECODER_BATCH
from maskstream.pipeline.segmenter.proposals import (
    BoolMap,
    Proposal,
    ScoredBoxes,
    decode_boxes,
    refine,
    suppress_boxes,
    suppress_duplicates,
)

BATCH = 32  # prompts decoded together
Grid = Literal["head", "hierarchical", "plain"]
"""Where prompts come from: boxes of the objectness head and points beside them, or grids alone."""
GRIDS: tuple[Grid, ...] = get_args(Grid)

COARSENESS = 4
"""Ratio of fine to coarse points per side in `find_everything`, as in TinySAM's release."""


class SearchSettings(Protocol):
    """Settings of a search. Areas are shares of the image, scores 0..1."""

    @property
    def coarse_points_per_side(self) -> int:
        """Grid of the first pass."""

    @property
    def fine_points_per_side(self) -> int:
        """Grid of the second pass."""

    @property
    def iou_min(self) -> float:
        """Least predicted IoU of a mask."""

    @property
    def stability_min(self) -> float:
        """Least stability score of a mask."""

    @property
    def stability_offset(self) -> float:
        """Logits by which the threshold is moved to compute stability."""

    @property
    def done_logit(self) -> float:
        """Logit from which a cell needs no further prompt."""

    @property
    def area_min(self) -> float:
        """Least area of a mask."""

    @property
    def area_max(self) -> float:
        """Greatest area of a mask."""

    @property
    def duplicate_iou(self) -> float:
        """IoU above which two masks are the same object."""


class EverythingSettings(BaseModel):
    """Settings of `find_everything`: `SearchSettings`, and when no finer prompt is needed.

    done_masks: number of kept masks that must cover a cell before it gets no more prompts.
    neighbor_min: the last doubling of the grid only prompts points beside a done cell or a point
    whose best predicted IoU was at least this; 0: everywhere, and all fine points at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    coarse_points_per_side: int = Field(ge=1, le=64)
    fine_points_per_side: int = Field(ge=1, le=128)
    iou_min: float = Field(ge=0, le=1)
    stability_min: float = Field(ge=0, le=1)
    stability_offset: float = Field(gt=0)
    done_logit: float
    area_min: float = Field(ge=0, le=1)
    area_max: float = Field(gt=0, le=1)
    duplicate_iou: float = Field(gt=0, le=1)
    done_masks: int = Field(1, ge=1)
    neighbor_min: float = Field(0.0, ge=0, le=1)


TINYSAM = EverythingSettings(
    coarse_points_per_side=32 // COARSENESS,
    fine_points_per_side=32,
    iou_min=0.88,
    stability_min=0.95,
    stability_offset=1.0,
    done_logit=8.5,
    area_min=1e-6,  # any mask but an empty one
    area_max=1,
    duplicate_iou=0.7,
)
"""The published settings (`tinysam/hierarchical_mask_generator.py`); SAM's own but `done_logit`."""


def coarse_points(side: int) -> npt.NDArray[np.float32]:
    """Points [side², 2] at the centers of a side x side grid, (x, y) as shares of the image."""
    centers = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(centers, centers)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def fine_points(coarse_points_per_side: int, fine_points_per_side: int) -> npt.NDArray[np.float32]:
    """Points of the second pass: a stencil of fine strides around every coarse point.

    With a ratio of 4 the offsets are -1, 0, 1, 2 strides, as in TinySAM's release. The coarse
    points themselves are left out.
    """
    ratio = fine_points_per_side // coarse_points_per_side
    if ratio < 2:
        return np.zeros((0, 2), np.float32)
    steps = np.arange(ratio) - (ratio // 2 - 1)
    dx, dy = np.meshgrid(steps, steps)
    offsets = np.stack([dx.ravel(), dy.ravel()], axis=1)
    offsets = offsets[(offsets != 0).any(1)] / np.float32(fine_points_per_side)
    points = (coarse_points(coarse_points_per_side)[:, None] + offsets[None]).reshape(-1, 2)
    inside = ((points >= 0) & (points < 1)).all(1)
    return np.asarray(points[inside], np.float32)


@dataclass(frozen=True, slots=True)
class PointPass:
    """Points [n, 2] that are prompted before their answers exclude any area.

    beside: only those beside a done cell or a well-answered point (`neighbor_min`).
    """

    points: npt.NDArray[np.float32]
    beside: bool = False


def grid_passes(coarse_points_per_side: int, fine_points_per_side: int) -> list[PointPass]:
    """Split a plain grid of `fine_points_per_side` points per side into passes, coarse to fine.

    First one point of each cell of the coarse grid, then one position of the stencil around it per
    pass. Each doubling of the grid is complete before the next begins; within it the points between
    four come first. With a ratio of 4 these are 64 points, 3 passes until 16 x 16 are prompted,
    then 12 passes `beside` them. TinySAM's points lie half a fine stride farther down and right.
    """
    points = coarse_points(fine_points_per_side)
    ratio = fine_points_per_side // coarse_points_per_side
    x, y = (np.floor(points * fine_points_per_side).astype(int) - (ratio // 2 - 1)).T % ratio
    step = (x | y) & -(x | y)  # the power of two that divides both; 0: a position of the first pass
    kinds = np.stack(
        [np.where(step, -step, -fine_points_per_side), (x & y & step) == 0, y, x], axis=1
    )
    passes, kind = np.unique(kinds, axis=0, return_inverse=True)
    return [
        PointPass(points[kind.ravel() == i], bool(first[0] == -1)) for i, first in enumerate(passes)
    ]


class EverythingSearch:
    """Everything-mode search over one encoded frame.

    occupied_mask: bool [4h, 4w], excluded from prompts (live tracks). passes: the points of each
    pass, by default the hierarchical coarse and fine ones. done_masks, neighbor_min: as in
    `EverythingSettings`. Iterate over `steps` and stop when the budget is spent; `found` returns
    the proposals so far, without duplicates.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        features: Features,
        occupied_mask: BoolMap,
        config: SearchSettings,
        *,
        passes: Sequence[PointPass] | None = None,
        done_masks: int = 1,
        neighbor_min: float = 0.0,
    ) -> None:
        self._segmenter = segmenter
        self._features = features
        self._config = config
        self._passes = passes or (
            PointPass(coarse_points(config.coarse_points_per_side)),
            PointPass(fine_points(config.coarse_points_per_side, config.fine_points_per_side)),
        )
        self._done_masks = done_masks
        self._beside_min = neighbor_min
        self.done = occupied_mask.copy()
        self._kept_masks = np.zeros(occupied_mask.shape, np.int32)
        self._answered = np.zeros((0, 2), np.float32)  # or done
        self._proposals: list[Proposal] = []

    def steps(self, budget: float = math.inf) -> Iterator[int]:
        """Decode batch after batch, `budget` prompts at most; yields the prompts of each batch.

        What a pass finds excludes area only from later passes. From the second pass on, points that
        do not fill a decoder batch wait for the next pass: each new batch size has a setup cost of
        about ten prompts.
        """
        waiting = np.zeros((0, 2), np.float32)
        for number, point_pass in enumerate(self._passes, 1):
            first_new = len(self._proposals)
            waiting = np.concatenate(
                [waiting[~self._is_done(waiting)], self._remaining(point_pass)]
            )
            complete = number in (1, len(self._passes))
            left_over = 0 if complete else len(waiting) % DECODER_BATCH
            while len(waiting) > left_over and budget > 0:
                size = int(min(BATCH, budget, len(waiting) - left_over))
                batch, waiting = waiting[:size], waiting[size:]
                self._proposals += self._decode(batch)
                budget -= len(batch)
                yield len(batch)
            for proposal in self._proposals[first_new:]:
                self._kept_masks += proposal.logits > self._config.done_logit
            self.done |= self._kept_masks >= self._done_masks

    def run(self, budget: int) -> list[Proposal]:
        """Spend at most `budget` prompts and return the proposals found."""
        for _ in self.steps(budget):
            pass
        return self.found()

    @property
    def proposals(self) -> Sequence[Proposal]:
        """All proposals so far, with duplicates, in the order of their prompts."""
        return self._proposals

    def found(self) -> list[Proposal]:
        """Proposals, best first, without duplicates (IoU of masks, not of boxes)."""
        return suppress_duplicates(self._proposals, self._config.duplicate_iou)

    def _remaining(self, point_pass: PointPass) -> npt.NDArray[np.float32]:
        """The points of a pass that still need a prompt."""
        done = self._is_done(point_pass.points)
        waiting = point_pass.points[~done]
        if point_pass.beside:
            reach = 1.01 / self._config.fine_points_per_side
            apart = np.abs(waiting[:, None] - self._answered[None]).max(2, initial=0)
            waiting = waiting[(apart <= reach).any(1)]
        self._answered = np.concatenate([self._answered, point_pass.points[done]])
        return waiting

    def _is_done(self, points: npt.NDArray[np.float32]) -> BoolMap:
        """Whether each of the points [n, 2] needs no prompt, bool [n]."""
        geometry = self._segmenter.geometry
        valid = np.array(geometry.valid_hw[::-1]) / geometry.cell
        limit = np.array(geometry.grid_hw[::-1]) - 1
        cells = np.minimum((points * valid).astype(np.intp), limit)
        return np.asarray(self.done[cells[:, 1], cells[:, 0]])

    def _decode(self, points: npt.NDArray[np.float32]) -> list[Proposal]:
        config = self._config
        geometry = self._segmenter.geometry
        pixels = points * np.array(geometry.frame_hw[::-1], np.float32)
        decoded = self._segmenter.decode(self._features, PromptBatch.points(pixels[:, None]))
        logits = decoded.masks[:, 1:].reshape(-1, *decoded.masks.shape[2:])
        iou = decoded.iou[:, 1:].reshape(-1)
        answered = decoded.iou[:, 1:].max(1) >= self._beside_min
        self._answered = np.concatenate([self._answered, points[answered]])
        kept = np.flatnonzero(iou >= config.iou_min)
        logits, iou = logits[kept], iou[kept]
        stable = stability(logits, config.stability_offset)
        area = (logits > 0).mean((-2, -1))
        good = (
            (stable >= config.stability_min) & (area >= config.area_min) & (area <= config.area_max)
        )
        return [Proposal(logits[i], float(iou[i]), float(stable[i])) for i in np.flatnonzero(good)]


@dataclass(frozen=True, slots=True)
class EverythingChoice:
    """Overrides of the settings of `find_everything`; None: the model's own.

    points_per_side: of the fine grid. Raises `ConfigError` unless it is a multiple of `COARSENESS`.
    """

    points_per_side: int = 32
    iou_min: float | None = None
    stability_min: float | None = None
    done_logit: float | None = None

    def __post_init__(self) -> None:
        if self.points_per_side % COARSENESS:
            raise ConfigError(
                f"{self.points_per_side} points per side have no coarse grid: give a "
                f"multiple of {COARSENESS}"
            )

    def settings(self, card: ModelCard) -> EverythingSettings:
        """Settings for a model: the published ones, updated by its card's and the chosen ones."""
        chosen = asdict(self)
        fine_points_per_side = chosen.pop("points_per_side")
        changes = dict(card.everything)
        changes |= {name: value for name, value in chosen.items() if value is not None}
        changes |= {
            "coarse_points_per_side": fine_points_per_side // COARSENESS,
            "fine_points_per_side": fine_points_per_side,
        }
        return EverythingSettings.model_validate(TINYSAM.model_dump() | changes)


def find_everything(
    segmenter: Segmenter,
    features: Features,
    settings: EverythingSettings,
    grid: Grid,
    boxes: ScoredBoxes | None = None,
) -> tuple[list[Proposal], int]:
    """Find the objects of a single image; returns them, best first, and the prompts spent.

    A segmenter that finds all masks when it encodes gets no prompts, whatever the grid.
    head: `boxes`, which it requires, are the prompts, and points where they gave no mask, as
    MobileSAMv2's object-aware prompts (arXiv 2312.09579).
    hierarchical: TinySAM's two passes (arXiv 2312.13789, section 3.4), the second one split into
    passes if the settings have a `neighbor_min`. plain: all points of a grid of
    `settings.fine_points_per_side` points per side at once, as SAM's automatic mask generator
    (arXiv 2304.02643). Of masks whose boxes overlap by more than `settings.duplicate_iou` both keep
    the one with the highest predicted IoU. Boxes are those of the low-resolution masks. Unlike in
    the release, a pass may find nothing or have no points.
    """
    if isinstance(features, FoundMasks):
        own = [p for p in features.proposals() if _is_kept(p, settings)]
        return suppress_duplicates(own, settings.duplicate_iou), 0
    if grid == "head":
        if boxes is None:
            raise ValueError("the boxes of the head are not given")
        return _find_from_boxes(segmenter, features, settings, boxes)
    passes = None
    if grid == "plain":
        passes = [PointPass(coarse_points(settings.fine_points_per_side))]
    elif settings.neighbor_min > 0:
        passes = grid_passes(settings.coarse_points_per_side, settings.fine_points_per_side)
    search = EverythingSearch(
        segmenter,
        features,
        np.zeros(segmenter.geometry.grid_hw, np.bool_),
        settings,
        passes=passes,
        done_masks=settings.done_masks,
        neighbor_min=settings.neighbor_min,
    )
    prompts = sum(search.steps())
    return suppress_boxes(search.proposals, settings.duplicate_iou), prompts


def _find_from_boxes(
    segmenter: Segmenter, features: Features, settings: EverythingSettings, boxes: ScoredBoxes
) -> tuple[list[Proposal], int]:
    """Decode boxes, then points of the coarse grid that no mask of a box covers.

    What a point finds is decoded again with its box, which is a prompt, too.
    """
    found = [p for p in decode_boxes(segmenter, features, boxes) if _is_kept(p, settings)]
    covered = np.zeros(segmenter.geometry.grid_hw, np.bool_)
    for proposal in found:
        covered |= proposal.logits > 0
    grid = PointPass(coarse_points(settings.coarse_points_per_side))
    search = EverythingSearch(segmenter, features, covered, settings, passes=[grid])
    prompts = len(boxes) + sum(search.steps())
    beside = search.found()
    found += refine(segmenter, features, beside)
    return suppress_duplicates(found, settings.duplicate_iou), prompts + len(beside)


def _is_kept(proposal: Proposal, settings: EverythingSettings) -> bool:
    """Whether the mask of a box is confident and of an allowed size."""
    area = float((proposal.logits > 0).mean())
    return proposal.iou >= settings.iou_min and settings.area_min <= area <= settings.area_max
