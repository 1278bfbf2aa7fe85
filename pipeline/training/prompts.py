"""Training prompts drawn from ground truth: boxes, points, and corrections of what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PAD, POSITIVE


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch of prompts: xy [B, N, 2] in 0..1 of the padded square, labels [B, N]."""

    xy: Tensor
    labels: Tensor

    @property
    def single_point(self) -> Tensor:
        """Bool [B]: one positive point and nothing else (ambiguous)."""
        points = (self.labels == POSITIVE) | (self.labels == NEGATIVE)
        boxed = (self.labels == BOX_TOP_LEFT).any(1)
        return (points.sum(1) == 1) & ~boxed

    def with_point(self, xy: Tensor, labels: Tensor) -> Prompts:
        """Add one point (xy [B, 2], labels [B]) to every prompt."""
        return Prompts(
            torch.cat([self.xy, xy[:, None]], 1), torch.cat([self.labels, labels[:, None]], 1)
        )


def draw_pixel(weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one pixel a map with odds `weight` [B, H, W]; (x, y) normalised [B, 2] and its index."""
    b, h, w = weight.shape
    flat = weight.flatten(1)
    empty = flat.sum(1, keepdim=True) <= 0
    index = torch.multinomial(flat + empty.to(flat.dtype), 1, generator=generator)[:, 0]
    side = max(h, w)
    jitter = torch.rand(b, 2, generator=generator)
    xy = torch.stack([index % w, index // w], dim=1).to(weight.dtype)
    return (xy + jitter) / side, index


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes xyxy [B, 4] of masks [B, H, W] > 0.5, normalised by the padded square."""
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


def first_prompts(masks: Tensor, generator: torch.Generator, box_jitter: float = 0.08) -> Prompts:
    """A box or a point for every mask [B, H, W], half of each; boxes are jittered by their size."""
    batch = masks.shape[0]
    boxes = boxes_of(masks)
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(batch, 4, generator=generator) * torch.rand(batch, 1, generator=generator)
    boxes = boxes + (noise * box_jitter * size).clamp(-0.05, 0.05)
    point, _ = draw_pixel((masks > 0.5).to(masks.dtype), generator)
    boxed = torch.rand(batch, generator=generator) < 0.5
    corners = boxes.reshape(batch, 2, 2)
    padded = torch.stack([point, torch.zeros_like(point)], 1)
    xy = torch.where(boxed[:, None, None], corners, padded)
    labels = torch.where(
        boxed[:, None],
        torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]]),
        torch.tensor([[POSITIVE, PAD]]),
    )
    return Prompts(xy, labels)


def corrective_points(
    logits: Tensor, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A point in the region where logits [B, H, W] and masks disagree; xy [B, 2], labels [B].

    Positive where the object was missed, negative where something else was taken. Where nothing
    is wrong, a positive point inside the object.
    """
    truth = masks > 0.5
    wrong = (logits > 0) != truth
    right = ~wrong.flatten(1).any(1)
    weight = torch.where(right[:, None, None], truth, wrong).to(masks.dtype)
    xy, index = draw_pixel(weight, generator)
    hit = truth.flatten(1).gather(1, index[:, None])[:, 0]
    return xy, torch.where(hit, POSITIVE, NEGATIVE)
