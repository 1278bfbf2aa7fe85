"""Trains the objectness head on cached features; resumable."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.cached_trainer import CachedTrainer, Progress
from maskstream.pipeline.lab.training.objectness.cache import batches
from maskstream.pipeline.lab.training.objectness.config import ObjectnessTrainConfig
from maskstream.pipeline.lab.training.objectness.targets import assign, cell_centers
from maskstream.pipeline.lab.training.video.cache import Arrays, read_chunk
from maskstream.pipeline.objectness.model import INPUTS
from maskstream.pipeline.objectness.network import STRIDES, ObjectnessNetwork


class ObjectnessTrainer(CachedTrainer[ObjectnessNetwork, Arrays]):
    """Trains the objectness head of one run."""

    def __init__(
        self, config: ObjectnessTrainConfig, progress: Progress = lambda step, row: None
    ) -> None:
        self.config = config
        self._files = batches(config.folder)
        if not self._files:
            raise TrainingDataError(f"no batches in {config.folder}")
        torch.manual_seed(config.seed)
        network = ObjectnessNetwork()
        groups = [{"params": list(network.parameters()), "factor": 1.0}]
        device = torch.device("cpu")
        super().__init__(config, network, groups, device=device, rate_floor=0.01, progress=progress)

    def _batch(self) -> Arrays:
        rng = np.random.default_rng((self.config.seed, self.step))
        return read_chunk(self._files[int(rng.integers(len(self._files)))])

    def _loss(self, batch: Arrays) -> tuple[Tensor, dict[str, float]]:
        score, box, iou = losses(self.network, batch, bf16=self.config.bf16)
        loss = score + self.config.box_weight * box
        return loss, {"score": float(score.detach()), "box": float(box.detach()), "iou": iou}


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
