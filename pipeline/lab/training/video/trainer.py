"""Trains the memory network on cached sequences, through its own predictions; resumable."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.video.cache import chunks, read_chunk
from maskstream.pipeline.lab.training.video.sequences import OBJECTS
from maskstream.pipeline.memory.cells import choose_cells
from maskstream.pipeline.memory.features import NAMES
from maskstream.pipeline.memory.network import (
    KEY,
    LIKENESS,
    VALUE,
    FrameKeys,
    MemoryNetwork,
    soft_aggregation,
    unit,
)

logger = logging.getLogger(__name__)

_PRESENT_CELLS = 4.0  # of stride 4, that an object covers to be present


@dataclass(frozen=True, slots=True)
class VideoTrainConfig:
    """Every number of a training.

    reference_cells, recent_cells: remembered of a frame at most; their steps: of the grid away from
    objects. recent: frames read beside the prompted one. propagated_share: odds that the
    propagated mask is an input.
    """

    steps: int = 20_000
    warmup: int = 200
    lr: float = 1e-3
    weight_decay: float = 0.02
    clip_norm: float = 2.0
    ema_decay: float = 0.998
    seed: int = 0
    reference_cells: int = 768
    recent_cells: int = 384
    reference_step: int = 2
    recent_step: int = 4
    recent: int = 2
    propagated_share: float = 0.7
    presence_weight: float = 0.2
    dice_weight: float = 1.0
    checkpoint_every: int = 200
    check_every: int = 1000


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


def start_keys(network: MemoryNetwork, files: list[Path], *, frames: int = 64) -> None:
    """Set keys to the principal components of unit vectors of strides 8 and 16: the untrained
    likeness, from which alone learning begins at once.
    """
    rows = []
    for file in files:
        arrays = read_chunk(file)
        s8 = torch.from_numpy(arrays["s8"].astype(np.float32)).flatten(0, 1)[::4]
        s16 = torch.from_numpy(arrays["s16"].astype(np.float32)).flatten(0, 1)[::4]
        coarse = F.interpolate(unit(s16), scale_factor=2.0, mode="bilinear", align_corners=False)
        both = torch.cat([unit(s8), coarse], 1).flatten(2).transpose(1, 2)
        rows.append(both[:, ::7].reshape(-1, both.shape[-1]))
        if sum(map(len, rows)) > frames * 2304:
            break
    cells = torch.cat(rows)
    # Not centered: what all cells share changes nothing in a softmax, but keys stay comparable.
    _, vectors = torch.linalg.eigh(cells.T @ cells / len(cells))
    basis = vectors[:, -KEY:].T
    with torch.no_grad():
        network.keys.key_s8.weight.copy_(basis[:, :40, None, None])
        network.keys.key_s16.weight.copy_(basis[:, 40:, None, None])


class VideoTrainer:
    """Owns the network, its average, the optimizer and the checkpoint of one run."""

    def __init__(
        self, config: VideoTrainConfig, folder: Path, cache: Path, *, device: str = "cpu"
    ) -> None:
        self.config = config
        self.folder = folder
        self.cache = cache
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.network = MemoryNetwork()
        if not self.checkpoint.exists():
            start_keys(self.network, self._chunks())
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        slow = {"keys.key_s8.weight", "keys.key_s16.weight", "keys.log_scale"}
        named = list(self.network.named_parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if n in slow], "factor": 0.3, "weight_decay": 0.0},
                {"params": [p for n, p in named if n not in slow], "factor": 1.0},
            ],
            lr=config.lr,
            weight_decay=config.weight_decay,
        )
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """The file that a run resumes from."""
        return self.folder / "last.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill at any instant leaves the old or the new one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "config": asdict(self.config),
            },
            part,
        )
        os.replace(part, self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def run(self, seconds: float = math.inf) -> None:
        """Train to the configured number of steps, or for so long."""
        self.resume()
        begun = time.monotonic()
        log = self.folder / "log.jsonl"
        while self.step < self.config.steps and time.monotonic() - begun < seconds:
            started = time.monotonic()
            scores = self.train_step(self._batch())
            self.step += 1
            row: dict[str, Any] = {
                "step": self.step,
                "seconds": time.monotonic() - started,
                **scores,
            }
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            if self.step % self.config.checkpoint_every == 0:
                self.save()
        self.save()

    def _chunks(self) -> list[Path]:
        found = chunks(self.cache)
        if not found:
            raise TrainingDataError(f"no sequences in {self.cache}: prepare some first")
        return found

    def _batch(self) -> dict[str, Tensor]:
        """A chunk drawn at random, mirrored half of the time."""
        rng = np.random.default_rng((self.config.seed, self.step))
        while True:
            files = self._chunks()
            try:
                arrays = read_chunk(files[int(rng.integers(len(files)))])
                break
            except (OSError, ValueError):  # just replaced by a newer one
                continue
        return to_batch(arrays, self.device)

    def _rate(self) -> float:
        config = self.config
        warm = min(1.0, (self.step + 1) / config.warmup)
        return warm * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, self.step / config.steps)))
        )

    def train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One step of the optimizer on a batch; gives losses and mean IoU."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * group["factor"] * self._rate()
        rng = np.random.default_rng((self.config.seed, self.step, 1))
        loss, scores = self.rollout(self.network, batch, rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self._update_average()
        return {"loss": float(loss.detach()), "norm": float(norm), **scores}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self.network.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def rollout(
        self, network: MemoryNetwork, batch: dict[str, Tensor], rng: np.random.Generator | None
    ) -> tuple[Tensor, dict[str, float]]:
        """Answer the frames of a batch one after the other, each from those before.

        rng: decides what is left out, None: nothing is. Gives the loss and measures.
        """
        config = self.config
        truth = batch["masks"]  # [B, T, O, H, W]
        size, frames, count = truth.shape[0], truth.shape[1], truth.shape[2]
        with torch.autocast(self.device.type, torch.bfloat16):
            maps = [batch[name].flatten(0, 1).bfloat16() for name in NAMES]
            frames_keys = _split(network.keys(*maps), size, frames)
            small = F.avg_pool2d(truth.flatten(1, 2), 2).reshape(size, frames, count, 72, 128)
            reference = remember(
                network,
                frames_keys[0],
                small[:, 0],
                step=config.reference_step,
                limit=config.reference_cells,
            )
            small = small.bfloat16()
            prompted = (small[:, 0].sum((2, 3)) > 0).bfloat16()
            banks: list[_Bank] = []
            before, losses, ious, right = small[:, 0], [], [], []
            for t in range(1, frames):
                propagated = _warp(before, batch["flow"][:, t]).to(small.dtype)
                known = (propagated.amax((2, 3)) > 0.5).to(small.dtype) * prompted
                if rng is not None:
                    given = rng.random((size, count)) < config.propagated_share
                    known = known * torch.from_numpy(given).to(known)
                recent = _Bank.join(banks[-config.recent :]) if banks else None
                logits, presence = predict(
                    network, frames_keys[t], reference, recent, propagated, known
                )
                logits = logits.float() - 24 * (1 - prompted[:, :, None, None].float())
                loss, joint = self._loss(logits, presence.float(), truth[:, t], prompted.float())
                losses.append(loss)
                before = joint[:, 1:].detach()
                before = F.avg_pool2d(before, 2).to(small.dtype)
                banks.append(
                    remember(
                        network,
                        frames_keys[t],
                        before,
                        step=config.recent_step,
                        limit=config.recent_cells,
                    )
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
        self, logits: Tensor, presence: Tensor, truth: Tensor, prompted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of a frame and probabilities [B, 1 + O, H, W]."""
        config = self.config
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


def to_batch(arrays: dict[str, npt.NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Arrays of a chunk as tensors; masks float [B, T, OBJECTS, H, W] of the labels."""
    batch = {name: torch.from_numpy(arrays[name]).to(device).float() for name in (*NAMES, "flow")}
    labels = torch.from_numpy(arrays["labels"]).to(device)
    batch["masks"] = torch.stack([(labels == i + 1).float() for i in range(OBJECTS)], 2)
    return batch


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
