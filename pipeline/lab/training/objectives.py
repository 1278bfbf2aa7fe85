"""Training objectives: prompted masks end to end, or a teacher's embedding.

Full-stage distillation, hard prompts and hard mask weighting: TinySAM (arXiv 2312.13789, sections
3.1 and 3.2). All distances to the teacher are L1; that of embeddings may also be L2 as in
EfficientViT-SAM (arXiv 2402.05008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.lab.training.config import TeacherConfig, TrainConfig
from maskstream.pipeline.lab.training.losses import (
    Answer,
    focal_loss,
    focal_loss_by_pixels,
    hard_mask_weights,
    mask_iou,
    segmentation_loss,
    soft_iou_distance,
)
from maskstream.pipeline.lab.training.prompts import (
    Prompts,
    ProposalBatch,
    corrective_points,
    first_prompts,
    more_points,
    points_anywhere,
    scattered_points,
)
from maskstream.pipeline.lab.training.sampler import Sample
from maskstream.pipeline.lab.training.teacher import Adapter, Extent, Teacher, extent_of
from maskstream.pipeline.lab.training.validate import normalize
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from maskstream.pipeline.segmenter.mask_decoder import DecoderOutput
from maskstream.pipeline.segmenter.sam import Sam

Scores = dict[str, float]

_NARROW = 0.8  # short by long side
_POINTS_ANYWHERE = 4  # points per narrow image, decoded in it and in its padded square
_LOGIT_LIMIT = 10.0  # logits are clipped to this range before they are compared


class Objective(Protocol):
    """A loss of a batch, with scores for the log."""

    def __call__(self, model: Sam, samples: list[Sample], step: int) -> tuple[Tensor, Scores]:
        """The loss of a step (scalar) and its scores."""


def embedding_distance(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    """Mean L1 or L2 distance of two embeddings of the same shape."""
    return F.l1_loss(student, teacher) if kind == "l1" else F.mse_loss(student, teacher)


@dataclass(frozen=True, slots=True)
class EmbeddingObjective:
    """Stage 1: the student's encoder learns the teacher's embedding."""

    teacher: Teacher
    adapter: Adapter
    device: torch.device

    def __call__(self, model: Sam, samples: list[Sample], step: int) -> tuple[Tensor, Scores]:
        """The distance of the embeddings."""
        images = np.stack([s.image for s in samples])
        own = model.encode(normalize(images, model).to(self.device)).embedding
        side = max(images.shape[1:3])
        h, w = own.shape[-2:]
        extent = extent_of((h, w), images.shape[1] // h, side)
        taught = self.teacher.embedding_at(self.teacher.features(step, images), (h, w), extent)
        kind = self.teacher.config.embedding_distance
        loss = embedding_distance(self.adapter.embedding(own), taught, kind)
        cosine = F.cosine_similarity(self.adapter.embedding(own.detach()), taught).mean()
        return loss, {"cosine": float(cosine)}


@dataclass(frozen=True, slots=True)
class _TeacherFeatures:
    """The teacher's features of a step, repeated per prompt, and their extent."""

    teacher: Teacher
    features: ImageFeatures
    extent: Extent
    side: float


@dataclass(frozen=True, slots=True)
class PromptObjective:
    """Stage 2: end-to-end mask losses on ground truth and, with a teacher, on its output."""

    config: TrainConfig
    device: torch.device
    teacher: Teacher | None = None
    adapter: Adapter | None = None

    def __call__(self, model: Sam, samples: list[Sample], step: int) -> tuple[Tensor, Scores]:
        """The mean loss of all prompt rounds, with the distillation losses."""
        config = self.config
        generator = torch.Generator(self.device)
        generator.manual_seed(hash((config.seed, step)) & 0x7FFFFFFF)
        images = np.stack([s.image for s in samples])
        target = torch.from_numpy(np.concatenate([s.masks for s in samples])).to(self.device)
        features = model.encode(normalize(images, model).to(self.device))
        loss = torch.zeros((), device=self.device)
        scores: Scores = {}
        taught = None
        if self.teacher is not None and self.adapter is not None:
            taught, distance = self._distil_embedding(
                self.teacher, self.adapter, features, images, step
            )
            loss = loss + self.teacher.config.embedding * distance
            scores["embedding"] = float(distance.detach())
        prompts = first_prompts(
            target,
            generator,
            proposals=ProposalBatch.of([p for s in samples for p in s.proposals], self.device),
            proposal_share=config.proposal_share,
            box_jitter=config.box_jitter,
            centered_share=config.centered_share,
        )
        if config.first_points > 1:
            prompts = more_points(prompts, target, generator, config.first_points)
        whole, features = features, _repeat(features, config.objects)
        for turn in range(config.rounds):
            out, answer = self._answer(model, features, prompts, target)
            if turn == 0 and config.square_consistency and _is_narrow(images):
                anywhere = self._decode_points_anywhere(model, whole, images, generator)
                decoded = [(prompts, out, answer.takes_part), anywhere]
                distance = self._distance_in_square(model, images, whole, decoded)
                loss = loss + config.square_consistency * distance
                scores["square"] = float(distance.detach())
            loss = loss + answer.loss / config.rounds
            if taught is not None:
                distance = self._distil_masks(taught, prompts, out, answer, target, scores)
                loss = loss + distance / config.rounds
            logits = _selected_masks(out, answer)
            _note(scores, turn, mask_iou(logits, target), prompts)
            if turn + 1 < config.rounds:
                prompts = self._correct(model, features, prompts, target, logits, generator)
        return loss, scores

    def _distil_embedding(
        self,
        teacher: Teacher,
        adapter: Adapter,
        features: ImageFeatures,
        images: np.ndarray,
        step: int,
    ) -> tuple[_TeacherFeatures, Tensor]:
        theirs = teacher.features(step, images)
        side = max(images.shape[1:3])
        h, w = features.embedding.shape[-2:]
        extent = extent_of((h, w), images.shape[1] // h, side)
        distance = embedding_distance(
            adapter.embedding(features.embedding),
            teacher.embedding_at(theirs, (h, w), extent),
            teacher.config.embedding_distance,
        )
        return _TeacherFeatures(
            teacher, _repeat(theirs, self.config.objects), extent, side
        ), distance

    def _distance_in_square(
        self,
        model: Sam,
        images: np.ndarray,
        features: ImageFeatures,
        decoded: Sequence[tuple[Prompts, DecoderOutput, Tensor]],
    ) -> Tensor:
        """Distance of embedding and masks from those of the same image padded to a square.

        decoded: prompts, decoder output, and [B, 4] 1 for the masks that take part.
        """
        side = max(images.shape[1:3])
        pixels = normalize(images, model).to(self.device)
        square = model.encode(_pad(pixels, side, 0.0))
        h, w = features.embedding.shape[-2:]
        distance = (square.embedding[..., :h, :w] - features.embedding).abs().mean()
        for prompts, out, takes_part in decoded:
            height, width = out.masks.shape[-2:]
            mask = _pad(prompts.mask[:, None], side // model.architecture.cell, -_LOGIT_LIMIT)
            padded = _repeat(square, len(prompts.xy) // len(images))
            there = model.decode(padded, prompts.xy, prompts.labels, mask, prompts.has_mask).masks
            there = there[..., :height, :width]
            apart = _logit_distance(there, out.masks) + soft_iou_distance(there, out.masks)
            distance = distance + (apart * takes_part).sum() / takes_part.sum()
        return distance

    def _decode_points_anywhere(
        self, model: Sam, features: ImageFeatures, images: np.ndarray, generator: torch.Generator
    ) -> tuple[Prompts, DecoderOutput, Tensor]:
        """Decode random points of the images, as prompts of everything mode."""
        count, height, width = images.shape[:3]
        cell = model.architecture.cell
        prompts = points_anywhere(count * _POINTS_ANYWHERE, (height, width), generator, cell)
        repeated = _repeat(features, _POINTS_ANYWHERE)
        out = model.decode(
            repeated, prompts.xy, prompts.labels, prompts.mask[:, None], prompts.has_mask
        )
        takes_part = torch.ones_like(out.iou)
        takes_part[:, 0] = 0  # single points use the other three masks
        return prompts, out, takes_part

    def _answer(
        self, model: Sam, features: ImageFeatures, prompts: Prompts, target: Tensor
    ) -> tuple[DecoderOutput, Answer]:
        out = model.decode(
            features, prompts.xy, prompts.labels, prompts.mask[:, None], prompts.has_mask
        )
        focal = focal_loss_by_pixels if self.config.loss == "sam" else focal_loss
        answer = segmentation_loss(
            out.masks, out.iou, target, prompts.ambiguous, prompts.absent, focal
        )
        return out, answer

    def _distil_masks(
        self,
        taught: _TeacherFeatures,
        prompts: Prompts,
        out: DecoderOutput,
        answer: Answer,
        target: Tensor,
        scores: Scores,
    ) -> Tensor:
        """Distance of tokens and mask logits to the teacher's, over the masks that take part."""
        config: TeacherConfig = taught.teacher.config
        if not (config.token or config.output) or self.adapter is None:
            return torch.zeros((), device=self.device)
        theirs = taught.teacher.decode(taught.features, prompts, taught.extent, taught.side)
        part = answer.takes_part / answer.takes_part.sum()
        tokens = (self.adapter.tokens(out.tokens) - theirs.tokens).abs().mean(-1)
        distance = _logit_distance(out.masks, theirs.masks)
        if config.hard_mask_weighting:
            truth = target[:, None].expand_as(out.masks)
            student_iou = mask_iou(out.masks.detach(), truth)
            teacher_iou = mask_iou(theirs.masks, truth)
            distance = distance * hard_mask_weights(teacher_iou, student_iou)
        scores["output"] = float((distance.detach() * part).sum())
        loss: Tensor = ((config.token * tokens + config.output * distance) * part).sum()
        return loss

    @torch.no_grad()
    def _correct(
        self,
        model: Sam,
        features: ImageFeatures,
        prompts: Prompts,
        target: Tensor,
        logits: Tensor,
        generator: torch.Generator,
    ) -> Prompts:
        """Add corrective points before the next round: hard ones one by one, or random ones."""
        upper = self.config.max_points + 1
        count = int(torch.randint(1, upper, (), generator=generator, device=self.device))
        draw = torch.rand(len(target), generator=generator, device=self.device)
        has_mask = (draw < 0.8).to(target.dtype)
        if not self.config.hard_prompts:
            more = scattered_points(target, generator, count)
            return prompts.with_points(*more).with_mask(logits, has_mask)
        for done in range(1, count + 1):
            more = corrective_points(
                logits, target, generator, centered_share=self.config.centered_share
            )
            prompts = prompts.with_points(*more).with_mask(logits, has_mask)
            if done < count:
                logits = _selected_masks(*self._answer(model, features, prompts, target))
        return prompts


def _logit_distance(a: Tensor, b: Tensor) -> Tensor:
    """L1 distance [...] of clipped logits [..., h, w]."""
    a, b = (x.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT) for x in (a, b))
    return (a - b).abs().mean((-2, -1))


def _is_narrow(images: np.ndarray) -> bool:
    """Whether at least a fifth of the padded square would be padding, as for 16:9 and 4:3."""
    height, width = images.shape[1:3]
    return bool(min(height, width) <= _NARROW * max(height, width))


def _pad(x: Tensor, side: int, value: float) -> Tensor:
    """Pad [B, C, h, w] right and below to a square."""
    return F.pad(x, (0, side - x.shape[-1], 0, side - x.shape[-2]), value=value)


def _selected_masks(out: DecoderOutput, answer: Answer) -> Tensor:
    """Logits [B, h, w] of the masks selected at inference."""
    rows = torch.arange(len(answer.selected), device=answer.selected.device)
    return out.masks[rows, answer.selected].detach()


def _note(scores: Scores, turn: int, iou: Tensor, prompts: Prompts) -> None:
    if turn > 0:
        scores[f"iou_{turn}"] = float(iou.mean())
        return
    tracked = prompts.has_mask > 0
    kinds = {"point": prompts.ambiguous, "box": ~prompts.ambiguous & ~tracked}
    kinds["proposal"] = tracked & ~prompts.absent
    for kind, chosen in kinds.items():
        if chosen.any():
            scores[f"iou_{kind}"] = float(iou[chosen].mean())


def _repeat(features: ImageFeatures, times: int) -> ImageFeatures:
    """Repeat every image's features for each of its prompts."""
    return features.each(lambda x: x.repeat_interleave(times, 0))
