"""Validation on the held-out split: mean IoU from a box, from clicks, and from proposals."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from maskstream.pipeline.lab.training.augment import Image, Labels, fit_into, pad_to
from maskstream.pipeline.lab.training.data import Source
from maskstream.pipeline.lab.training.losses import mask_iou
from maskstream.pipeline.lab.training.prompts import (
    Prompts,
    ProposalBatch,
    boxes_of,
    corrective_points,
)
from maskstream.pipeline.lab.training.proposals import Proposal, disturb
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD, POSITIVE
from maskstream.pipeline.segmenter.sam import Sam

CLICKS = 3


def fit(image: Image, labels: Labels, long_side: int, multiple: int) -> tuple[Image, Labels]:
    """Scale to the long side and pad right and below to the multiple with the mean's gray."""
    scaled, ids = fit_into(image, labels, (long_side, long_side))
    h, w = ids.shape
    return pad_to(scaled, ids, (h + -h % multiple, w + -w % multiple))


def normalize(images: np.ndarray, model: Sam) -> Tensor:
    """RGB uint8 [B, H, W, 3] to the network's float [B, 3, H, W], channels last."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32)
    mean = torch.tensor(model.architecture.mean)[:, None, None]
    std = torch.tensor(model.architecture.std)[:, None, None]
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def validate(
    model: Sam,
    sources: list[Source],
    *,
    long_side: int,
    images_per_source: int = 4,
    objects_per_image: int = 6,
) -> dict[str, dict[str, float]]:
    """Mean IoU at the decoder's resolution by source, with the macro average as "macro".

    Kinds: box; click1 (deepest point, best of three by predicted IoU); click3 (two more points
    where the mask is wrong); given and proposal (a disturbed mask before and after decoding).
    """
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    model.eval()
    for source in sources:
        for item in source.held_out[:images_per_source]:
            image, labels = fit(*item.load(), long_side, model.architecture.multiple)
            ids, counts = np.unique(labels, return_counts=True)
            ids = ids[(ids > 0) & (counts >= 0.001 * labels.size)]
            if len(ids) == 0:
                continue
            ids = np.random.default_rng(0).permutation(ids)[:objects_per_image]
            masks = np.stack([labels == i for i in ids])
            for kind, values in _ious_by_prompt(model, image, masks).items():
                scores[source.name][kind] += values
    table = {
        name: {kind: float(np.mean(values)) for kind, values in kinds.items()}
        for name, kinds in scores.items()
    }
    if table:
        kinds = next(iter(table.values()))
        table["macro"] = {
            kind: float(np.mean([row[kind] for row in table.values()])) for kind in kinds
        }
    return table


def _ious_by_prompt(model: Sam, image: Image, full: np.ndarray) -> dict[str, list[float]]:
    """IoU of every object (bool [P, H, W]) by kind of prompt."""
    count = len(full)
    device = next(model.parameters()).device
    truth = torch.from_numpy(full.astype(np.float32))
    target = torch.nn.functional.avg_pool2d(truth[:, None], model.architecture.cell)[:, 0]
    target = target.to(device)
    features = model.encode(normalize(image[None], model).to(device))
    side = max(image.shape[:2])

    def prompts_of(xy: Tensor, labels: tuple[int, int], mask: Tensor | None = None) -> Prompts:
        has_mask = torch.full((count,), float(mask is not None), device=device)
        of_each = torch.tensor([labels], device=device).expand(count, 2)
        mask = torch.zeros_like(target) if mask is None else mask
        return Prompts(xy.to(device), of_each, mask, has_mask, has_mask < 0)

    def answer(prompts: Prompts, best_of_three: bool = False) -> Tensor:
        mask = prompts.mask[:, None]
        out = model.decode(features, prompts.xy, prompts.labels, mask, prompts.has_mask)
        chosen = out.iou[:, 1:].argmax(1) + 1 if best_of_three else torch.zeros(count).long()
        return out.masks[torch.arange(count), chosen]

    def iou(logits: Tensor) -> list[float]:
        return [float(v) for v in mask_iou(logits, target)]

    corners = (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
    scores = {"box": iou(answer(prompts_of(boxes_of(truth).reshape(-1, 2, 2), corners)))}
    clicks = torch.tensor([deepest(m)[:2] for m in full], dtype=torch.float32)[:, None]
    points = torch.cat([(clicks + 0.5) / side, torch.zeros_like(clicks)], 1)
    clicked = prompts_of(points, (POSITIVE, PAD))
    logits = answer(clicked, best_of_three=True)
    scores["click1"] = iou(logits)
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(CLICKS - 1):
        clicked = clicked.with_points(*corrective_points(logits, target, generator))
        clicked = clicked.with_mask(logits, torch.ones(count, device=device))
        logits = answer(clicked)
    scores[f"click{CLICKS}"] = iou(logits)
    rng = np.random.default_rng(0)
    masks = target.cpu().numpy()
    disturbed = [Proposal.of(disturb(rng, m, masks[0]), absent=False) for m in masks]
    batch = ProposalBatch.of(disturbed, device)
    scores["given"] = iou(batch.logits)
    tracked = prompts_of(batch.box.reshape(-1, 2, 2), corners, batch.logits)
    scores["proposal"] = iou(answer(tracked))
    return scores
