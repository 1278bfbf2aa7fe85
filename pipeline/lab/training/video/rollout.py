"""Rollout of the memory network over training sequences: each frame from its own predictions."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.lab.training.video.config import VideoTrainConfig
from maskstream.pipeline.lab.training.video.int8_rounding import Int8Rounding
from maskstream.pipeline.memory.cells import choose_cells
from maskstream.pipeline.memory.features import NAMES
from maskstream.pipeline.memory.network import (
    KEY,
    LIKENESS,
    VALUE,
    FrameKeys,
    MemoryNetwork,
    soft_aggregation,
)

_PRESENT_CELLS = 4.0  # of stride 4, that an object covers to be present


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where it is faster than float32: on CUDA, and on CPUs with AMX or AVX-512 BF16."""
    found = torch.cpu.get_capabilities()
    fast = device == "cuda" or found.get("amx_bf16") or found.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


@dataclass(slots=True)
class _Bank:
    """Remembered cells of a batch: keys [B, N, KEY], weights [B, N], values [B, O, N, VALUE]."""

    keys: Tensor
    likeness: Tensor
    bias: Tensor
    values: Tensor

    @staticmethod
    def join(banks: list[_Bank]) -> _Bank:
        return _Bank(
            torch.cat([b.keys for b in banks], 1),
            torch.cat([b.likeness for b in banks], 1),
            torch.cat([b.bias for b in banks], 1),
            torch.cat([b.values for b in banks], 2),
        )


def remember(
    network: MemoryNetwork, frame: FrameKeys, masks: Tensor, *, step: int, limit: int
) -> _Bank:
    """Write a frame into the memory; masks [B, O, 2h, 2w] 0..1."""
    batch, count, height, width = masks.shape
    union = masks.sum(1, keepdim=True).clamp(max=1)
    own = masks.reshape(batch * count, 1, height, width)
    others = (union - masks).clamp(min=0).reshape(batch * count, 1, height, width)
    features = frame.features.repeat_interleave(count, 0)
    values = network.values(features, own, others)
    coverage = F.avg_pool2d(union, 2)[:, 0].detach().float().cpu().numpy()
    chosen = [choose_cells(c, step, limit) for c in coverage]
    longest = max(len(cells) for cells, _ in chosen)
    index = torch.zeros(batch, longest, dtype=torch.long)
    bias = torch.full((batch, longest), -1e4)
    for row, (cells, weights) in enumerate(chosen):
        index[row, : len(cells)] = torch.from_numpy(cells)
        bias[row, : len(cells)] = torch.from_numpy(np.log(weights))
    index, bias = index.to(masks.device), bias.to(masks.device)

    def take(maps: Tensor) -> Tensor:
        flat = maps.flatten(2).transpose(1, 2)
        rows = index if len(flat) == batch else index.repeat_interleave(count, 0)
        return flat.gather(1, rows[..., None].expand(-1, -1, flat.shape[-1]))

    held = take(values).reshape(batch, count, longest, VALUE)
    return _Bank(take(frame.key), take(frame.likeness), bias, held)


def read_bank(network: MemoryNetwork, frame: FrameKeys, bank: _Bank) -> tuple[Tensor, Tensor]:
    """Likenesses [B, LIKENESS, h, w] and values [B, O, VALUE, h, w] that a frame reads."""
    batch, count, cells, _ = bank.values.shape
    flat = bank.values.permute(0, 2, 1, 3).reshape(batch, cells, count * VALUE)
    values = torch.cat([bank.likeness, flat], 2)
    room = -values.shape[2] % KEY
    found = network.read(
        frame, bank.keys.to(values.dtype), F.pad(values, (0, room)), bank.bias.to(values.dtype)
    )
    likeness = found[:, :LIKENESS] * frame.likeness
    read = found[:, LIKENESS : LIKENESS + count * VALUE]
    return likeness, read.reshape(batch, count, VALUE, *read.shape[-2:])


def predict(
    network: MemoryNetwork,
    frame: FrameKeys,
    reference: _Bank,
    recent: _Bank | None,
    propagated: Tensor,
    known: Tensor,
) -> tuple[Tensor, Tensor]:
    """Logits [B, O, 2h, 2w] and presence logits [B, O] of all objects of a frame.

    propagated: masks [B, O, 2h, 2w] 0..1; known: [B, O], whether they say anything.
    """
    like_reference, from_reference = read_bank(network, frame, reference)
    batch, count = from_reference.shape[:2]
    if recent is None:
        like_recent, from_recent = (
            torch.zeros_like(like_reference),
            torch.zeros_like(from_reference),
        )
    else:
        like_recent, from_recent = read_bank(network, frame, recent)
    shared = torch.cat([frame.features, like_reference, like_recent], 1)
    read = torch.cat([from_reference, from_recent], 2).flatten(0, 1)
    read = torch.cat([shared.repeat_interleave(count, 0), read], 1)
    size = propagated.shape[-2:]
    propagated = propagated * known[:, :, None, None]
    beside = (propagated.sum(1, keepdim=True) - propagated).clamp(0, 1)
    flags = torch.stack([known, torch.full_like(known, float(recent is not None))], 2)
    logits, presence = network.head(
        read,
        propagated.reshape(batch * count, 1, *size),
        beside.reshape(batch * count, 1, *size),
        flags.flatten(0, 1),
        frame.s4.repeat_interleave(count, 0),
    )
    return logits.reshape(batch, count, *size), presence.reshape(batch, count)


def rollout(
    network: MemoryNetwork,
    batch: dict[str, Tensor],
    config: VideoTrainConfig,
    rng: np.random.Generator | None,
) -> tuple[Tensor, dict[str, float]]:
    """Predict the frames of a batch in order, each from the predictions before it.

    rng: decides which propagated masks are no input; None: all are. Returns the loss, and the mean
    IoU of all frames and of the last, and the accuracy of presence.
    """
    device = batch["masks"].device.type
    dtype = fast_dtype(device)
    size, frames = batch["masks"].shape[:2]
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        maps = [batch[name].flatten(0, 1).to(dtype) for name in NAMES]
        keys = _split(network.keys(*maps), size, frames)
        with Int8Rounding() if config.int8_rounding else nullcontext():
            return _follow(network, keys, batch, config, rng)


def _follow(
    network: MemoryNetwork,
    keys: list[FrameKeys],
    batch: dict[str, Tensor],
    config: VideoTrainConfig,
    rng: np.random.Generator | None,
) -> tuple[Tensor, dict[str, float]]:
    """See `rollout`. keys: of every frame."""
    truth = batch["masks"]  # [B, T, O, H, W]
    size, frames, count = truth.shape[:3]
    dtype = keys[0].key.dtype
    small = F.avg_pool2d(truth.flatten(1, 2), 2).reshape(size, frames, count, 72, 128)
    reference = remember(
        network,
        keys[0],
        small[:, 0],
        step=config.reference_step,
        limit=config.reference_cells,
    )
    small = small.to(dtype)
    prompted = (small[:, 0].sum((2, 3)) > 0).to(dtype)
    banks: list[_Bank] = []
    before, losses, ious, right = small[:, 0], [], [], []
    for t in range(1, frames):
        propagated = _warp(before, batch["flow"][:, t]).to(small.dtype)
        known = (propagated.amax((2, 3)) > 0.5).to(small.dtype) * prompted
        if rng is not None:
            given = rng.random((size, count)) < config.propagated_share
            known = known * torch.from_numpy(given).to(known)
        recent = _Bank.join(banks[-config.recent :]) if banks else None
        logits, presence = predict(network, keys[t], reference, recent, propagated, known)
        logits = logits.float() - 24 * (1 - prompted[:, :, None, None].float())
        loss, joint = _loss(logits, presence.float(), truth[:, t], prompted.float(), config)
        losses.append(loss)
        before = joint[:, 1:].detach()
        before = F.avg_pool2d(before, 2).to(small.dtype)
        banks.append(
            remember(network, keys[t], before, step=config.recent_step, limit=config.recent_cells)
        )
        ious.append(_iou(joint[:, 1:], truth[:, t], prompted))
        right.append(_presence_accuracy(presence, truth[:, t], prompted))
    scores = {
        "iou": float(np.mean([i for i in ious if i == i])),
        "iou_last": float(ious[-1]),
        "presence": float(np.mean(right)),
    }
    return torch.stack(losses).mean(), scores


def _loss(
    logits: Tensor, presence: Tensor, truth: Tensor, prompted: Tensor, config: VideoTrainConfig
) -> tuple[Tensor, Tensor]:
    """The loss of a frame and probabilities [B, 1 + O, H, W]."""
    large = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
    joint = soft_aggregation(large)
    target = torch.cat([1 - truth.sum(1, keepdim=True).clamp(max=1), truth], 1)
    each = -(target * F.log_softmax(joint, 1)).sum(1).flatten(1)
    hardest = each.topk(int(0.25 * each.shape[1]), 1).values.mean()
    probabilities = joint.softmax(1)
    p, y = probabilities[:, 1:].flatten(2), truth.flatten(2)
    here = (y.sum(2) > 16).float() * prompted
    dice = 1 - (2 * (p * y).sum(2) + 1) / (p.sum(2) + y.sum(2) + 1)
    dice_mean = (dice * here).sum() / here.sum().clamp(min=1)
    wrongly = (p.mean(2) * (1 - here) * prompted).sum() / prompted.sum().clamp(min=1)
    there = (y.sum(2) > 4 * _PRESENT_CELLS).float()
    bce = F.binary_cross_entropy_with_logits(presence, there, reduction="none")
    seen = (bce * prompted).sum() / prompted.sum().clamp(min=1)
    loss = (
        each.mean()
        + hardest
        + config.dice_weight * dice_mean
        + 5 * wrongly
        + config.presence_weight * seen
    )
    return loss, probabilities


def _split(frame: FrameKeys, size: int, frames: int) -> list[FrameKeys]:
    parts = [
        getattr(frame, name).reshape(size, frames, *getattr(frame, name).shape[1:]).unbind(1)
        for name in FrameKeys.__slots__
    ]
    return [FrameKeys(*maps) for maps in zip(*parts, strict=True)]


def _warp(masks: Tensor, flow: Tensor) -> Tensor:
    """Masks [B, O, h, w] of the frame before, moved along the flow [B, h, w, 2] (cells)."""
    _, height, width, _ = flow.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    from_x = (2 * (x + flow[..., 0]) + 1) / width - 1
    from_y = (2 * (y + flow[..., 1]) + 1) / height - 1
    grid = torch.stack([from_x, from_y], -1).float()
    return F.grid_sample(masks.float(), grid, padding_mode="border", align_corners=False)


def _iou(probabilities: Tensor, truth: Tensor, prompted: Tensor) -> float:
    found, mask = probabilities > 0.5, truth > 0.5
    both = (found & mask).flatten(2).sum(2).float()
    either = (found | mask).flatten(2).sum(2).float()
    here = (prompted > 0) & (mask.flatten(2).sum(2) > 16)
    return float((both / either.clamp(min=1))[here].mean()) if bool(here.any()) else math.nan


def _presence_accuracy(presence: Tensor, truth: Tensor, prompted: Tensor) -> float:
    there = truth.flatten(2).sum(2) > 4 * _PRESENT_CELLS
    right = ((presence > 0) == there).float()
    return float((right * prompted).sum() / prompted.sum().clamp(min=1))
