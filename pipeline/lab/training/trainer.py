"""The training loop: promptable segmentation end to end, resumable at any step."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.lab.training.augment import AugmentConfig
from maskstream.pipeline.lab.training.config import TrainConfig
from maskstream.pipeline.lab.training.curves import draw_curves
from maskstream.pipeline.lab.training.data import CocoSet, cutouts, find_sources
from maskstream.pipeline.lab.training.objectives import (
    EmbeddingObjective,
    Objective,
    PromptObjective,
)
from maskstream.pipeline.lab.training.sampler import Sample, Sampler
from maskstream.pipeline.lab.training.start import build_started
from maskstream.pipeline.lab.training.teacher import Adapter, Teacher
from maskstream.pipeline.lab.training.validate import validate
from maskstream.pipeline.segmenter.devices import choose_device
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import LiteEncoder
from maskstream.pipeline.segmenter.sam import Sam, build

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int, dict[str, Any]], None]
"""Called at every checkpoint with the run's name, its step, the number of steps and a log row."""

_BATCH_KEYS = {  # what the images of a step depend on, with the names used in their hash
    "data": "data",
    "coco": "coco",
    "excluded_sources": "left_out",
    "source_weights": "source_weights",
    "whole_sources": "whole_sources",
    "held_out_percent": "held_back_percent",
    "seed": "seed",
    "batch": "batch",
    "objects": "objects",
    "shapes": "shapes",
    "absent_share": "gone_share",
}


def _keep_batch_norm_fixed(model: Sam) -> None:
    """Freeze the backbone's ImageNet statistics: batches are too small to estimate them."""
    if isinstance(model.image_encoder, LiteEncoder):
        for module in model.image_encoder.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _pasted(config: TrainConfig) -> list[Path]:
    """Files of the cut-outs to paste."""
    return [] if config.data is None or config.augmentation == "flip" else cutouts(config.data)


def _check_shapes(config: TrainConfig, multiple: int) -> None:
    """Raise `ConfigError` unless the network takes images of all shapes."""
    for shape in config.shapes:
        if any(side % multiple for side in shape):
            raise ConfigError(
                f"shapes: {config.model} takes multiples of {multiple} pixels, not {list(shape)}"
            )


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """Owns the model, its average, the optimizer and the checkpoints of one run."""

    def __init__(self, config: TrainConfig, progress: Progress | None = None) -> None:
        self.config = config
        self._progress = progress
        torch.manual_seed(config.seed)
        self.device = torch.device(choose_device(config.device))
        self.model = build_started(config.model, config.init_from)
        _check_shapes(config, self.model.architecture.multiple)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        config.folder.mkdir(parents=True, exist_ok=True)
        self.adapter, self.objective = self._objective()
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=config.weight_decay)
        self.step = 0
        self.sources = find_sources(
            config.data,
            coco={name: CocoSet(c.annotations, c.images) for name, c in config.coco.items()},
            weights=config.source_weights,
            whole=config.whole_sources,
            excluded_sources=config.excluded_sources,
            held_out_percent=config.held_out_percent,
        )
        self.sampler = Sampler(
            self.sources,
            _pasted(config),
            seed=config.seed,
            objects=config.objects,
            augment=AugmentConfig(flip_only=config.augmentation == "flip"),
            absent=config.absent_share,
            cell=self.model.architecture.cell,
        )
        self._log = config.folder / "log.jsonl"

    def _objective(self) -> tuple[Adapter | None, Objective]:
        """The adapter to the teacher's channels (None: no teacher) and the loss."""
        config = self.config
        if config.teacher is None:
            return None, PromptObjective(config, self.device)
        values = config.model_dump(mode="json", include=set(_BATCH_KEYS))
        batches = {_BATCH_KEYS[key]: value for key, value in values.items()}
        if config.augmentation != "full":  # the default keeps older caches valid
            batches["augmentation"] = config.augmentation
        identity = f"{zlib.crc32(json.dumps(batches, sort_keys=True).encode()):08x}"
        teacher = Teacher(config.teacher, config.folder, identity, self.device)
        own = int(self.model.mask_decoder.mask_tokens.weight.shape[1])
        adapter = Adapter(own, teacher.dim).to(self.device)
        if config.stage == "embedding":
            return adapter, EmbeddingObjective(teacher, adapter, self.device)
        return adapter, PromptObjective(config, self.device, teacher, adapter)

    def _groups(self) -> list[dict[str, Any]]:
        config = self.config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        named = list(self.model.named_parameters())
        if self.adapter is not None:
            named += list(self.adapter.named_parameters())
        for name, parameter in named:
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
        """Write the checkpoint atomically: after a kill the old or the new file is complete."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "adapter": self.adapter.state_dict() if self.adapter is not None else {},
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
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        if self.adapter is not None:
            self.adapter.load_state_dict(state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def run(self) -> dict[str, float]:
        """Train to the configured number of steps; returns the last validation's macro averages."""
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
        return self._last_validation()

    def write_weights(self, file: Path) -> None:
        """Write the averaged weights in half precision, with their step and configuration.

        Training can start from the file (`init_from`) and `quantize --checkpoint` reads it.
        """
        half = {k: v.half() if v.is_floating_point() else v for k, v in self.average.items()}
        config = self.config.model_dump(mode="json")
        torch.save({"average": half, "step": self.step, "config": config}, file)

    def _batch(self, step: int) -> list[Sample]:
        if self.config.teacher is not None and self.config.teacher.epoch_steps:
            step %= self.config.teacher.epoch_steps
        rng = np.random.default_rng((self.config.seed, step))
        shape = self.config.shapes[int(rng.integers(len(self.config.shapes)))]
        return self.sampler.batch(step, self.config.batch, shape)

    def _train_step(self, samples: list[Sample]) -> dict[str, float]:
        config = self.config
        self.model.train()
        _keep_batch_norm_fixed(self.model)
        factor = learning_rate_factor(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        loss, scores = self.objective(self.model, samples, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        self._update_average()
        return {"loss": float(loss.detach()), "norm": float(norm), **scores}

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
        if self._progress is not None and self.step % config.checkpoint_every == 0:
            self._progress(config.name, self.step, config.steps, row)
        if "validation" in row:
            draw_curves(self._log, config.folder / "curves.png")

    def _last_validation(self) -> dict[str, float]:
        rows = [json.loads(line) for line in self._log.read_text().splitlines()]
        checked = [row["validation"]["macro"] for row in rows if row.get("validation")]
        found: dict[str, float] = checked[-1] if checked else {}
        return found
