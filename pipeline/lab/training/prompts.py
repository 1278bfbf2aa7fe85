"""Training prompts: boxes, points and proposals from ground truth, and corrective points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskstream.pipeline.lab.training.proposals import Proposal
from maskstream.pipeline.segmenter.geometry import GRID_STRIDE, deepest
from maskstream.pipeline.segmenter.labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    PAD,
    POSITIVE,
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch of prompts.

    xy: [B, N, 2], 0..1 of the padded square. labels: [B, N]. mask: logits [B, h, w] of the mask
    prompt. has_mask: [B], 1 where there is a mask prompt. absent: [B], true where the object is not
    on the image.
    """

    xy: Tensor
    labels: Tensor
    mask: Tensor
    has_mask: Tensor
    absent: Tensor

    @property
    def ambiguous(self) -> Tensor:
        """Bool [B]: one positive point and nothing else."""
        points = (self.labels == POSITIVE) | (self.labels == NEGATIVE)
        boxed = (self.labels == BOX_TOP_LEFT).any(1)
        return (points.sum(1) == 1) & ~boxed & (self.has_mask == 0)

    def with_points(self, xy: Tensor, labels: Tensor) -> Prompts:
        """Add points (xy [B, n, 2], labels [B, n]) to every prompt."""
        return replace(
            self, xy=torch.cat([self.xy, xy], 1), labels=torch.cat([self.labels, labels], 1)
        )

    def with_mask(self, logits: Tensor, has_mask: Tensor) -> Prompts:
        """Use logits [B, h, w] as mask prompt where `has_mask` [B] is 1."""
        return replace(self, mask=logits, has_mask=has_mask)


@dataclass(frozen=True, slots=True)
class ProposalBatch:
    """A batch of `proposals.Proposal`: logits [B, h, w], box [B, 4], point [B, 2], absent [B]."""

    logits: Tensor
    box: Tensor
    point: Tensor
    absent: Tensor

    @classmethod
    def of(cls, proposals: Sequence[Proposal], device: torch.device) -> ProposalBatch:
        """Stack proposals of one size."""

        def stack(values: Iterable[object]) -> Tensor:
            return torch.from_numpy(np.stack([np.asarray(v) for v in values])).to(device)

        return cls(
            stack(p.logits for p in proposals),
            stack(p.box_xyxy for p in proposals),
            stack(p.point_xy for p in proposals),
            stack(p.absent for p in proposals),
        )


def draw_pixel(weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a pixel per map with odds `weight` [B, H, W]; returns xy 0..1 [B, 2] and the index."""
    b, h, w = weight.shape
    flat = weight.flatten(1)
    empty = flat.sum(1, keepdim=True) <= 0
    index = torch.multinomial(flat + empty.to(flat.dtype), 1, generator=generator)[:, 0]
    side = max(h, w)
    jitter = torch.rand(b, 2, generator=generator, device=weight.device)
    xy = torch.stack([index % w, index // w], dim=1).to(weight.dtype)
    return (xy + jitter) / side, index


def click(
    regions: Sequence[Tensor], generator: torch.Generator, centered_share: float
) -> tuple[Tensor, Tensor]:
    """Draw a pixel of the union of some regions, bool [B, H, W] each; returns as `draw_pixel`.

    With odds `centered_share` it is the deepest pixel of any region (farthest from its border),
    where people click; otherwise it is a random one.
    """
    weight = torch.stack(list(regions)).any(0)
    xy, index = draw_pixel(weight.to(torch.float32), generator)
    if centered_share == 0:
        return xy, index
    _, height, width = weight.shape
    draw = torch.rand(len(weight), generator=generator, device=weight.device)
    for row in torch.nonzero(draw < centered_share)[:, 0].tolist():
        x, y, _ = max((deepest(r[row].cpu().numpy()) for r in regions), key=lambda place: place[2])
        xy[row] = torch.tensor([x + 0.5, y + 0.5]) / max(height, width)
        index[row] = y * width + x
    return xy, index


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes xyxy [B, 4] of masks [B, H, W] > 0.5, normalized by the padded square."""
    _, h, w = masks.shape
    side = max(h, w)
    inside = masks > 0.5
    columns, rows = inside.any(1), inside.any(2)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        n = line.shape[1]
        first = line.to(torch.int8).argmax(1)
        last = n - line.flip(1).to(torch.int8).argmax(1)
        return first, last

    x0, x1 = ends(columns)
    y0, y1 = ends(rows)
    return torch.stack([x0, y0, x1, y1], 1).to(torch.float32) / side


def jittered(boxes: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Boxes xyxy [B, 4] with noise on every side, relative to the box size by `strength`."""
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    device = boxes.device
    each = torch.randn(len(boxes), 4, generator=generator, device=device)
    noise = each * torch.rand(len(boxes), 1, generator=generator, device=device)
    return boxes + (noise * strength * size).clamp(-0.05, 0.05)


def first_prompts(
    masks: Tensor,
    generator: torch.Generator,
    *,
    proposals: ProposalBatch | None = None,
    proposal_share: float = 0.0,
    box_jitter: float = 0.08,
    centered_share: float = 0.0,
) -> Prompts:
    """A box or a point (half of each) for every mask [B, h, w], or a tracker's proposal.

    A proposal is prompted with its box, its mask and, in half of the calls, its deepest point.
    proposal_share: odds of a proposal. box_jitter: see `jittered`. centered_share: see `click`.
    """
    device = masks.device

    def chance(share: float) -> Tensor:
        return torch.rand(len(masks), generator=generator, device=device) < share

    boxes = jittered(boxes_of(masks), generator, box_jitter)
    point, _ = click([masks > 0.5], generator, centered_share)
    boxed = chance(0.5)
    nowhere = torch.zeros_like(point)
    xy = torch.where(
        boxed[:, None, None], boxes.reshape(-1, 2, 2), torch.stack([point, nowhere], 1)
    )
    labels = torch.where(
        boxed[:, None],
        torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], device=device),
        torch.tensor([[POSITIVE, PAD]], device=device),
    )
    none = torch.zeros(len(masks), device=device)
    prompts = Prompts(xy, labels, torch.zeros_like(masks), none, none > 0)
    if proposals is None or proposal_share == 0:
        return prompts
    tracked = chance(proposal_share)
    box = jittered(proposals.box, generator, box_jitter / 2).reshape(-1, 2, 2)
    corners = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], device=device)
    prompts = Prompts(
        torch.where(tracked[:, None, None], box, xy),
        torch.where(tracked[:, None], corners, labels),
        proposals.logits,
        tracked.to(masks.dtype),
        tracked & proposals.absent,
    )
    if torch.rand((), generator=generator, device=device) < 0.5:
        label = torch.where(tracked, POSITIVE, PAD)
        prompts = prompts.with_points(proposals.point[:, None], label[:, None])
    return prompts


def scattered_points(
    masks: Tensor, generator: torch.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """`count` random positive points in each mask [B, h, w]; xy [B, n, 2], labels [B, n]."""
    inside = (masks > 0.5).to(masks.dtype)
    xy = torch.stack([draw_pixel(inside, generator)[0] for _ in range(count)], 1)
    return xy, torch.full(xy.shape[:2], POSITIVE, device=masks.device)


def more_points(prompts: Prompts, masks: Tensor, generator: torch.Generator, most: int) -> Prompts:
    """Add points to single-point prompts, up to a common random number of 1 to `most` points.

    Other prompts get padding points.
    """
    count = int(torch.randint(most, (), generator=generator, device=masks.device))
    if count == 0:
        return prompts
    xy, labels = scattered_points(masks, generator, count)
    return prompts.with_points(xy, torch.where(prompts.ambiguous[:, None], labels, PAD))


def points_anywhere(
    count: int, size_hw: tuple[int, int], generator: torch.Generator, cell: int = GRID_STRIDE
) -> Prompts:
    """`count` prompts of one positive point, uniform in images of a size.

    cell: pixels per cell of the mask prompts.
    """
    height, width = size_hw
    device = generator.device
    side = max(size_hw)
    share = torch.tensor([width / side, height / side], device=device)
    points = torch.rand(count, 1, 2, generator=generator, device=device) * share
    labels = torch.tensor([[POSITIVE, PAD]], device=device).float().expand(count, 2)
    grid = (height // cell, width // cell)
    nothing = torch.zeros(count, device=device)
    return Prompts(
        torch.cat([points, torch.zeros_like(points)], 1),
        labels,
        torch.zeros(count, *grid, device=device),
        nothing,
        nothing > 0,
    )


def corrective_points(
    logits: Tensor, masks: Tensor, generator: torch.Generator, *, centered_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """A point where logits [B, H, W] and masks disagree; xy [B, 1, 2], labels [B, 1].

    It is positive at a false negative and negative at a false positive. Without errors it is a
    positive point inside the object. centered_share: see `click`.
    """
    truth, answer = masks > 0.5, logits > 0
    right = ~(answer != truth).flatten(1).any(1)
    missed = torch.where(right[:, None, None], truth, truth & ~answer)
    xy, index = click([missed, answer & ~truth], generator, centered_share)
    hit = truth.flatten(1).gather(1, index[:, None])[:, 0]
    return xy[:, None], torch.where(hit, POSITIVE, NEGATIVE)[:, None]
