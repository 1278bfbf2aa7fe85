"""The training loop of a network on cached features: checkpoints, average, log; resumable."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from maskstream.pipeline.lab.training.config import CachedTrainConfig

Progress = Callable[[int, dict[str, Any]], None]
"""Called at every checkpoint with the step and its log row."""


CHECKPOINT = "last.pt"
"""Name of the checkpoint in a run's folder."""


Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


class CachedTrainer(Generic[Network, Batch]):
    """Owns the network, its average, the optimizer and the checkpoint of one run.

    groups: AdamW's parameter groups, each with the `factor` of its learning rate. rate_floor: share
    of the learning rate at the end of the cosine.
    """

    def __init__(
        self,
        config: CachedTrainConfig,
        network: Network,
        groups: Sequence[dict[str, Any]],
        *,
        device: torch.device,
        rate_floor: float,
        progress: Progress,
    ) -> None:
        self._settings = config
        self._rate_floor = rate_floor
        self._progress = progress
        self.device = device
        self.network = network
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            list(groups), lr=config.lr, weight_decay=config.weight_decay
        )
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """The file that a run resumes from."""
        return self._settings.folder / CHECKPOINT

    def save(self) -> None:
        """Write the checkpoint; a kill at any instant leaves the old or the new one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "config": self._settings.model_dump(mode="json"),
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
        log = self._settings.folder / "log.jsonl"
        while self.step < self._settings.steps and time.monotonic() - begun < seconds:
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
            if self.step % self._settings.checkpoint_every == 0:
                self.save()
                self._progress(self.step, row)
        self.save()

    def write_weights(self, file: Path) -> None:
        """Write the averaged weights, FP16."""
        torch.save({name: value.half().cpu() for name, value in self.average.items()}, file)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimizer on a batch; returns what the log tells of it."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._settings.lr * group["factor"] * self._rate()
        loss, scores = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.clip_norm)
        self.optimizer.step()
        self._update_average()
        return {"loss": float(loss.detach()), "norm": float(norm), **scores}

    def _batch(self) -> Batch:
        """The batch of the current step."""
        raise NotImplementedError

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and scores for the log."""
        raise NotImplementedError

    def _rate(self) -> float:
        """Share of the learning rate: linear warm-up, and a cosine to the floor."""
        warm = min(1.0, (self.step + 1) / self._settings.warmup)
        done = min(1.0, self.step / self._settings.steps)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return warm * (self._rate_floor + (1 - self._rate_floor) * cosine)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self._settings.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)
