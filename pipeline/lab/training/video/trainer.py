"""Trains the memory network on cached sequences, through its own predictions; resumable."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.video.cache import (
    CHUNK,
    Arrays,
    FeatureMaker,
    chunks,
    fill,
    read_chunk,
)
from maskstream.pipeline.lab.training.video.config import VideoTrainConfig
from maskstream.pipeline.lab.training.video.rollout import rollout
from maskstream.pipeline.lab.training.video.sequences import (
    OBJECTS,
    SequenceConfig,
    SequenceSampler,
)
from maskstream.pipeline.memory.features import NAMES
from maskstream.pipeline.memory.network import KEY, MemoryNetwork, unit
from maskstream.pipeline.segmenter.devices import choose_device

CALIBRATION_SEQUENCES = 20
HELD_OUT_SEQUENCES = 16

Progress = Callable[[int, dict[str, Any]], None]


def prepare_sequences(config: VideoTrainConfig) -> Iterator[tuple[int, int]]:
    """Render and encode the sequences of a configuration that are not cached yet.

    Yields how many sequences there are, of how many, after each file. Raises `TrainingDataError`.
    """
    total = -(-config.sequences // CHUNK)
    if len(chunks(config.folder)) >= total:
        return
    sampler = SequenceSampler(
        config.data, SequenceConfig(frames=config.frames), seed=config.sequence_seed
    )
    for number in fill(config.folder, sampler, FeatureMaker.open(config.encoder), total=total):
        yield CHUNK * (number + 1), CHUNK * total


def calibration_sequences(config: VideoTrainConfig) -> tuple[list[Arrays], list[Arrays]]:
    """Sequences to calibrate an INT8 memory, and held-out ones to evaluate it."""
    maker = FeatureMaker.open(config.encoder)
    seed = config.sequence_seed + 1
    training = SequenceSampler(config.data, seed=seed)
    held_out = SequenceSampler(config.data, seed=seed, held_back=True)
    return (
        [maker(training.draw(i)) for i in range(CALIBRATION_SEQUENCES)],
        [maker(held_out.draw(i)) for i in range(HELD_OUT_SEQUENCES)],
    )


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
        self, config: VideoTrainConfig, progress: Progress = lambda step, row: None
    ) -> None:
        self.config = config
        self.folder = config.folder
        self.device = torch.device(choose_device(config.device))
        self._progress = progress
        torch.manual_seed(config.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.network = MemoryNetwork()
        if not self.checkpoint.exists():
            self._start()
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
                "config": self.config.model_dump(mode="json"),
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
                self._progress(self.step, row)
        self.save()

    def write_weights(self, file: Path) -> None:
        """Write the averaged weights, FP16."""
        torch.save({name: value.half().cpu() for name, value in self.average.items()}, file)

    def _start(self) -> None:
        """Start from a file of averaged weights, or from untrained keys."""
        given = self.config.init_from
        if given is None:
            start_keys(self.network, self._chunks())
            return
        try:
            weights = torch.load(given.expanduser(), map_location="cpu", weights_only=True)
            self.network.load_state_dict({k: v.float() for k, v in weights.items()})
        except (OSError, RuntimeError) as error:
            raise TrainingDataError(f"{given} holds no weights of the memory: {error}") from error

    def _chunks(self) -> list[Path]:
        found = chunks(self.config.folder)
        if not found:
            raise TrainingDataError(f"no sequences in {self.config.folder}")
        return found

    def _batch(self) -> dict[str, Tensor]:
        """A chunk drawn at random."""
        rng = np.random.default_rng((self.config.seed, self.step))
        files = self._chunks()
        return to_batch(read_chunk(files[int(rng.integers(len(files)))]), self.device)

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
        loss, scores = rollout(self.network, batch, self.config, rng)
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


def to_batch(arrays: dict[str, npt.NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Arrays of a chunk as tensors; masks float [B, T, OBJECTS, H, W] of the labels."""
    batch = {name: torch.from_numpy(arrays[name]).to(device).float() for name in (*NAMES, "flow")}
    labels = torch.from_numpy(arrays["labels"]).to(device)
    batch["masks"] = torch.stack([(labels == i + 1).float() for i in range(OBJECTS)], 2)
    return batch
