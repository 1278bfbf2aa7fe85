"""The plain ViT of EfficientSAM (torch; not imported at inference).

EfficientSAM: arXiv 2312.00863 (github.com/yformer/EfficientSAM), whose parameter names these
modules keep, so that a published state dict loads strictly. Every block attends to all cells.
Positions were learned for the 14 x 14 patches of pretraining and are stretched to the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import EncoderFeatures, ImageFeatures
from maskstream.pipeline.segmenter.encoders.plain_vit import NORM_EPS, PATCH, PatchEmbed
from maskstream.pipeline.segmenter.layers import sam_neck

_DEPTH = 12
_TAPPED = (2, 5)  # blocks at a quarter and half of the depth, as in SAM's ViT
_PRETRAINED_CELLS = 14  # per side


@dataclass(frozen=True, slots=True)
class StretchedViTSize:
    """Channels and heads of a published size; both have 12 blocks."""

    dim: int
    heads: int


SIZES = {"ti": StretchedViTSize(192, 3), "s": StretchedViTSize(384, 6)}
"""The published sizes by name, both for a square of 1024 pixels."""


class Attention(nn.Module):
    """Multi-head attention among all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, C] to the same shape."""
        b, n, c = x.shape
        q, k, v = (
            part.reshape(b, n, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, c))
        return out


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and an MLP; norms before both."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, C] to the same shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class StretchedViTEncoder(nn.Module):
    """Image encoder of EfficientSAM.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of 16. The authors stretch an image
    to the square of 1024 pixels, so its positions cover the whole grid whatever the image's aspect.
    """

    stride = PATCH
    multiple = PATCH

    def __init__(self, size: StretchedViTSize, embed_dim: int = 256) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(size.dim)
        positions = _PRETRAINED_CELLS**2 + 1  # the first is of the class token, which is unused
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, size.dim))
        self.blocks = nn.ModuleList(Block(size.dim, size.heads) for _ in range(_DEPTH))
        self.neck = sam_neck(size.dim, embed_dim)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The embedding of an image [B, 3, H, W] and intermediate features.

        s8 and s16 are the outputs of the third and the sixth block, both at stride 16: this network
        has no finer map.
        """
        x = self.patch_embed(x)
        _, h, w, _ = x.shape
        x = (x + self._positions(h, w)).flatten(1, 2)
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPPED:
                tapped.append(_to_map(x, h, w))
        s8, s16 = tapped
        embedding: Tensor = self.neck(_to_map(x, h, w))
        return EncoderFeatures(embedding, None, None, s8, s16)

    def forward(self, x: Tensor) -> ImageFeatures:
        """The embedding only; the published decoder takes no skips."""
        return ImageFeatures(self.all_features(x).embedding, None, None)

    def _positions(self, h: int, w: int) -> Tensor:
        """Positions of a grid, [1, h, w, C]."""
        learned = _to_map(self.pos_embed[:, 1:], _PRETRAINED_CELLS, _PRETRAINED_CELLS)
        stretched = F.interpolate(learned, (h, w), mode="bicubic", align_corners=False)
        return stretched.permute(0, 2, 3, 1)


def _to_map(tokens: Tensor, h: int, w: int) -> Tensor:
    """Tokens [B, h * w, C] as a map [B, C, h, w]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, h, w)
