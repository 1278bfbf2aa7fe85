"""Trains the objectness head on cached features; resumable."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.objectness.cache import batches
from maskstream.pipeline.lab.training.objectness.config import ObjectnessTrainConfig
from maskstream.pipeline.lab.training.objectness.targets import assign, cell_centers
from maskstream.pipeline.lab.training.video.cache import Arrays, read_chunk
from maskstream.pipeline.objectness.model import INPUTS
from maskstream.pipeline.objectness.network import STRIDES, ObjectnessNetwork

Progress = Callable[[int, dict[str, Any]], None]


class ObjectnessTrainer:
    """Owns the network, its average, the optimizer and the checkpoint of one run."""

    def __init__(
        self, config: ObjectnessTrainConfig, progress: Progress = lambda step, row: None
    ) -> None:
        self.config = config
        self._progress = progress
        self._files = batches(config.folder)
        if not self._files:
            raise TrainingDataError(f"no batches in {config.folder}")
        torch.manual_seed(config.seed)
        self.network = ObjectnessNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """The file that a run resumes from."""
        return self.config.folder / "last.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill at any instant leaves the old or the new one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
            },
            part,
        )
        os.replace(part, self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def run(self, seconds: float = math.inf) -> None:
        """Train to the configured number of steps, or for so long."""
        self.resume()
        begun = time.monotonic()
        log = self.config.folder / "log.jsonl"
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
                self._progress(self.step, row)
        self.save()

    def train_step(self, batch: Arrays) -> dict[str, float]:
        """One step of the optimizer on a batch; returns the losses and the mean IoU of boxes."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self._rate()
        score, box, iou = losses(self.network, batch, bf16=self.config.bf16)
        loss = score + self.config.box_weight * box
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self._update_average()
        return {
            "loss": float(loss.detach()),
            "score": float(score.detach()),
            "box": float(box.detach()),
            "iou": iou,
        }

    def write_weights(self, file: Path) -> None:
        """Write the averaged weights, FP16."""
        torch.save({name: value.half() for name, value in self.average.items()}, file)

    def _batch(self) -> Arrays:
        rng = np.random.default_rng((self.config.seed, self.step))
        return read_chunk(self._files[int(rng.integers(len(self._files)))])

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup)
        done = min(1.0, self.step / self.config.steps)
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)


def losses(
    network: ObjectnessNetwork, batch: Arrays, *, bf16: bool = False
) -> tuple[Tensor, Tensor, float]:
    """Loss of scores (quality focal loss), loss of boxes (GIoU), and mean IoU of the boxes.

    Both losses are means over the cells that learn a box. bf16: convolve in bfloat16.
    """
    maps = [
        torch.from_numpy(batch[n]).float().contiguous(memory_format=torch.channels_last)
        for n in INPUTS
    ]
    boxes = torch.from_numpy(batch["boxes"])
    owner = torch.from_numpy(batch["box_image"])
    background = torch.from_numpy(batch["background"])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = [out.float() for out in network(*maps)]
    score_sum = torch.zeros(())
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for stride, out in zip(STRIDES, outputs, strict=True):
        size_hw = (out.shape[2], out.shape[3])
        centers = cell_centers(size_hw, stride)
        rows = out.flatten(2).transpose(1, 2)  # [B, h w, 5]
        for image, row in enumerate(rows):
            targets = assign(boxes[owner == image], size_hw, stride, coarsest=stride == STRIDES[-1])
            answer = decode(row[targets.cells, 1:], centers[targets.cells], stride)
            quality = torch.zeros(len(row))
            quality[targets.cells] = box_iou(answer.detach(), targets.boxes)
            weight = torch.full((len(row),), float(background[image]))
            weight[targets.cells] = 1.0
            weight[targets.ignored] = 0.0
            score_sum = score_sum + (weight * quality_focal(row[:, 0], quality)).sum()
            found.append(answer)
            wanted.append(targets.boxes)
    answers, truth = torch.cat(found), torch.cat(wanted)
    count = max(1, len(truth))
    generalized = giou(answers, truth)
    iou = box_iou(answers.detach(), truth).mean() if len(truth) else torch.zeros(())
    return score_sum / count, (1 - generalized).sum() / count, float(iou)


def decode(distances: Tensor, centers: Tensor, stride: int) -> Tensor:
    """Boxes xyxy [P, 4] in input pixels of log distances [P, 4] from cell centers [P, 2]."""
    sides = stride * torch.exp(distances.clamp(max=5.0))
    return torch.cat([centers - sides[:, :2], centers + sides[:, 2:]], 1)


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss (arXiv 2006.04388, beta 2) of each cell."""
    gap = (quality - torch.sigmoid(logits)).square()
    return gap * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of pairs of boxes xyxy [P, 4], [P]."""
    overlap, union = _overlap_and_union(a, b)
    return overlap / union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (arXiv 1902.09630) of pairs of boxes xyxy [P, 4], [P]."""
    overlap, union = _overlap_and_union(a, b)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return overlap / union - (hull - union) / hull.clamp(min=1e-6)


def _overlap_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    overlap = sides.clamp(min=0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return overlap, (areas - overlap).clamp(min=1e-6)
