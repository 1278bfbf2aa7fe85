"""Losses of promptable segmentation on low-resolution logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - dice of sigmoid(logits) and target, both [..., H, W]; mean over pixels, [...]."""
    p = torch.sigmoid(logits)
    overlap = (p * target).sum((-2, -1))
    total = p.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss [...] normalized by the sum of its own weights, soft targets 0..1.

    SAM divides by the number of pixels instead and weights it 20:1 against dice; normalized by its
    weights it keeps the scale of a cross-entropy on the hard pixels.
    """
    p = torch.sigmoid(logits)
    weight = (p - target).abs().pow(gamma).detach() + 1e-4
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * entropy).sum((-2, -1)) / weight.sum((-2, -1))


def focal_loss_by_pixels(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """SAM's focal loss [...], 20 times the mean over pixels, to be added to one dice."""
    p = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return 20 * ((p - target).abs().pow(gamma) * entropy).mean((-2, -1))


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU [...] of logits > 0 and target > 0.5, both [..., H, W]."""
    a, b = logits > 0, target > 0.5
    overlap = (a & b).sum((-2, -1)).to(logits.dtype)
    union = (a | b).sum((-2, -1)).to(logits.dtype)
    return overlap / union.clamp(min=1)


def soft_iou_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - IoU of two soft masks [...], given as logits [..., H, W]; 0 where they are equal."""
    p, q = torch.sigmoid(a), torch.sigmoid(b)
    overlap = torch.minimum(p, q).sum((-2, -1))
    union = torch.maximum(p, q).sum((-2, -1))
    return 1 - (overlap + 1) / (union + 1)


def hard_mask_weights(teacher_iou: Tensor, student_iou: Tensor, eps: float = 1e-3) -> Tensor:
    """TinySAM's mask weights: 0.5 where both IoUs are equal, toward 1 where the student lags."""
    return torch.sigmoid(teacher_iou / (student_iou + eps) - 1)


@dataclass(frozen=True, slots=True)
class Answer:
    """Loss and chosen masks of one prompt round.

    loss: scalar, of the masks and the IoU head. trained: [B], index of the trained mask. selected:
    [B], index of the mask selected at inference. takes_part: [B, 4], 1 for the masks that the kind
    of prompt uses.
    """

    loss: Tensor
    trained: Tensor
    selected: Tensor
    takes_part: Tensor


def segmentation_loss(
    masks: Tensor,
    iou: Tensor,
    target: Tensor,
    ambiguous: Tensor,
    absent: Tensor,
    focal: Callable[[Tensor, Tensor], Tensor] = focal_loss,
) -> Answer:
    """Loss of one prompt round.

    masks [B, 4, H, W], iou [B, 4]: the decoder's output. target: [B, H, W]. Where `ambiguous` [B]
    (one point), only the best of masks 1..3 is trained; elsewhere mask 0. The IoU head learns the
    true IoU of every mask that takes part, which is 0 where the object is `absent` [B]; masks are
    not trained there.
    """
    expanded = target[:, None].expand_as(masks)
    per_mask = focal(masks, expanded) + dice_loss(masks, expanded)
    least = per_mask[:, 1:].argmin(1) + 1
    trained = torch.where(ambiguous, least, torch.zeros_like(least))
    there = (~absent).to(masks.dtype)
    mask_loss = (per_mask.gather(1, trained[:, None])[:, 0] * there).sum() / there.sum().clamp(1)
    takes_part = torch.zeros_like(iou)
    takes_part[:, 1:] = ambiguous[:, None].to(iou.dtype)
    takes_part[:, 0] = (~ambiguous).to(iou.dtype)
    true_iou = mask_iou(masks.detach(), expanded) * there[:, None]
    iou_loss = ((iou - true_iou).pow(2) * takes_part).sum() / takes_part.sum()
    best = iou.detach()[:, 1:].argmax(1) + 1
    selected = torch.where(ambiguous, best, torch.zeros_like(best))
    return Answer(mask_loss + iou_loss, trained, selected, takes_part)
