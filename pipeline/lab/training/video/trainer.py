"""Trains the memory network on cached sequences, through its own predictions; resumable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.cached_trainer import CHECKPOINT, CachedTrainer, Progress
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
HELD_OUT_SEQUENCES = 40


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


class VideoTrainer(CachedTrainer[MemoryNetwork, dict[str, Tensor]]):
    """Trains the memory network of one run."""

    def __init__(
        self, config: VideoTrainConfig, progress: Progress = lambda step, row: None
    ) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        config.folder.mkdir(parents=True, exist_ok=True)
        network = MemoryNetwork()
        slow = {"keys.key_s8.weight", "keys.key_s16.weight", "keys.log_scale"}
        named = list(network.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in named if n in slow], "factor": 0.3, "weight_decay": 0.0},
            {"params": [p for n, p in named if n not in slow and ".neck." not in n], "factor": 0.5},
            {"params": [p for n, p in named if ".neck." in n], "factor": 1.0},
        ]
        if not (config.folder / CHECKPOINT).exists():
            self._start(network)
        device = torch.device(choose_device(config.device))
        super().__init__(config, network, groups, device=device, rate_floor=0.02, progress=progress)

    def _start(self, network: MemoryNetwork) -> None:
        """Start from a file of averaged weights, or from untrained keys."""
        given = self.config.init_from
        if given is None:
            start_keys(network, self._chunks())
            return
        try:
            weights = torch.load(given.expanduser(), map_location="cpu", weights_only=True)
            weights = {k: v.float() for k, v in weights.items()}
            missing, unknown = network.load_state_dict(weights, strict=False)
            if unknown or any(not name.startswith("keys.neck.") for name in missing):
                raise RuntimeError(f"{[*missing, *unknown][0]} does not fit")
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

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((self.config.seed, self.step, 1))
        return rollout(self.network, batch, self.config, rng)


def to_batch(arrays: dict[str, npt.NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Arrays of a chunk as tensors; masks float [B, T, OBJECTS, H, W] of the labels."""
    batch = {name: torch.from_numpy(arrays[name]).to(device).float() for name in (*NAMES, "flow")}
    labels = torch.from_numpy(arrays["labels"]).to(device)
    batch["masks"] = torch.stack([(labels == i + 1).float() for i in range(OBJECTS)], 2)
    return batch
