"""The teacher of a distillation: a frozen network, with features cached for repeated batches.

Sources: TinySAM (arXiv 2312.13789) and EfficientViT-SAM (arXiv 2402.05008), which both compute the
teacher's embeddings once and train on them for many epochs.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.errors import TrainingDataError
from maskstream.pipeline.lab.training.config import TeacherConfig
from maskstream.pipeline.lab.training.prompts import Prompts
from maskstream.pipeline.lab.training.validate import normalize
from maskstream.pipeline.models.checkpoint import load_network
from maskstream.pipeline.models.find import find_checkpoint
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from maskstream.pipeline.segmenter.mask_decoder import DecoderOutput
from maskstream.pipeline.segmenter.sam import Sam

Extent = tuple[float, float]
"""Height and width that a map covers, relative to the side of the image's padded square."""


def resample(x: Tensor, covers: Extent, size_hw: tuple[int, int], wanted: Extent) -> Tensor:
    """Resample a map [B, C, h, w] of one extent to the cells of another extent, bilinearly.

    Returns [B, C, *size_hw]; outside the map its border values are repeated.
    """
    axes = []
    for cells, has, wants in zip(size_hw, covers, wanted, strict=True):
        centers = (torch.arange(cells, device=x.device, dtype=x.dtype) + 0.5) / cells * wants
        axes.append(2 * centers / has - 1)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([columns, rows], -1)[None].expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def extent_of(size_hw: tuple[int, int], stride: int, side: float) -> Extent:
    """Extent of a map of `size_hw` cells of `stride` pixels in a square of `side` pixels."""
    return size_hw[0] * stride / side, size_hw[1] * stride / side


class Teacher:
    """A frozen network that decodes the student's prompts on its own, larger input.

    folder: of the cached features, if the configuration repeats batches. identity: hash of what the
    batches depend on; features cached for other batches or from another teacher are refused.
    """

    def __init__(
        self, config: TeacherConfig, folder: Path, identity: str, device: torch.device
    ) -> None:
        self.config = config
        checkpoint, _ = find_checkpoint(str(config.checkpoint.expanduser()))
        self.network: Sam = load_network(checkpoint, config.model)
        self.network.requires_grad_(False).to(device)
        self._device = device
        self._store: FeatureStore | None = None
        if config.epoch_steps:
            whole = f"{_crc32(checkpoint):08x} {config.model} {config.long_side} {identity}"
            self._store = FeatureStore(folder / "teacher.zarr", whole)

    @property
    def dim(self) -> int:
        """Channels of its embedding and tokens."""
        return int(self.network.mask_decoder.mask_tokens.weight.shape[1])

    @torch.no_grad()
    def features(self, step: int, images: np.ndarray) -> ImageFeatures:
        """Features of a step's images (RGB uint8 [B, H, W, 3]), from the cache if possible."""
        key = f"{step % self.config.epoch_steps:06d}" if self._store is not None else ""
        if self._store is not None:
            kept = self._store.read(key)
            if kept is not None:
                return kept.each(lambda x: x.to(self._device))
        features = self.network.encode(self._fit(images).to(self._device))
        if self._store is not None:
            self._store.write(key, features)
        return features

    @torch.no_grad()
    def decode(
        self, features: ImageFeatures, prompts: Prompts, extent: Extent, side: float
    ) -> DecoderOutput:
        """Decode prompts whose mask prompts cover `extent` of an image of `side` pixels.

        Returned masks have the cells of the mask prompts. features: repeated per prompt.
        """
        h, w = features.embedding.shape[-2:]
        own = extent_of((h, w), self._stride, self._side)
        mask = resample(prompts.mask[:, None], extent, (4 * h, 4 * w), own)
        out = self.network.decode(features, prompts.xy, prompts.labels, mask, prompts.has_mask)
        size: tuple[int, int] = (prompts.mask.shape[-2], prompts.mask.shape[-1])
        return out._replace(masks=resample(out.masks, own, size, extent))

    def embedding_at(
        self, features: ImageFeatures, size_hw: tuple[int, int], extent: Extent
    ) -> Tensor:
        """The embedding resampled to the cells of the student's."""
        h, w = features.embedding.shape[-2:]
        own = extent_of((h, w), self._stride, self._side)
        return resample(features.embedding, own, size_hw, extent)

    @property
    def _stride(self) -> int:
        """Input pixels per cell of the embedding."""
        return 4 * self.network.architecture.cell

    @property
    def _side(self) -> float:
        return float(self.config.long_side)

    def _fit(self, images: np.ndarray) -> Tensor:
        """Scale to the teacher's side, normalize, pad right and below to its multiple."""
        x = normalize(images, self.network)
        h, w = x.shape[-2:]
        scale = self.config.long_side / max(h, w)
        size = (round(h * scale), round(w * scale))
        if size != (h, w):
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        multiple = self.network.architecture.multiple
        return F.pad(x, (0, -size[1] % multiple, 0, -size[0] % multiple))


def _crc32(file: Path) -> int:
    """CRC-32 of a file, read in parts."""
    crc = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 24):
            crc = zlib.crc32(chunk, crc)
    return crc


class FeatureStore:
    """Features by batch in a Zarr group, float16; incomplete batches are ignored."""

    def __init__(self, path: Path, identity: str) -> None:
        self._root: zarr.Group = zarr.open_group(path, mode="a")
        made_for = self._root.attrs.get("identity", identity)
        if made_for != identity:
            raise TrainingDataError(
                f"{path} holds features of another teacher or of other batches; remove it"
            )
        self._root.attrs["identity"] = identity

    def read(self, key: str) -> ImageFeatures | None:
        """The features of a batch, float32; None if they are not stored yet."""
        if key not in self._root:
            return None
        group = self._root[key]
        if not isinstance(group, zarr.Group) or not group.attrs.get("complete"):
            return None
        fields: list[Any] = [
            torch.from_numpy(np.asarray(group[name])).float() if name in group else None
            for name in ImageFeatures._fields
        ]
        return ImageFeatures(*fields)

    def write(self, key: str, features: ImageFeatures) -> None:
        """Store the features of a batch."""
        group = self._root.require_group(key)
        for name, value in features._asdict().items():
            if value is not None:
                data = value.detach().to("cpu", torch.float16).contiguous().numpy()
                group.create_array(name, data=data, overwrite=True)
        group.attrs["complete"] = True


class Adapter(nn.Module):
    """Projects a student's embedding and tokens to the teacher's channels; identity if equal."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        same = student_dim == teacher_dim
        self.embedding = nn.Identity() if same else nn.Conv2d(student_dim, teacher_dim, 1)
        self.tokens = nn.Identity() if same else nn.Linear(student_dim, teacher_dim)
