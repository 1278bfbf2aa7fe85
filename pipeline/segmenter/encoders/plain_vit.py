"""The plain ViT of Segment Anything (torch; not imported at inference).

SAM: arXiv 2304.02643; the backbone is ViTDet's (arXiv 2203.16527) with relative positions
decomposed into rows and columns as in MViTv2 (arXiv 2112.01526). Parameter names are those of PyPI
`segment-anything`, so that a published state dict loads strictly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import EncoderFeatures, ImageFeatures
from maskstream.pipeline.segmenter.layers import TransformerMLP, from_windows, sam_neck, to_windows

PATCH = 16
_CELLS = 64  # per side, for which positions were learned
_WINDOW = 14
NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class ViTSize:
    """Channels, blocks, heads of a published size; attention is global in four even blocks."""

    dim: int
    depth: int
    heads: int

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks with global attention, including the last one."""
        quarter = self.depth // 4
        return tuple(range(quarter - 1, self.depth, quarter))


SIZES = {"b": ViTSize(768, 12, 12), "l": ViTSize(1024, 24, 16), "h": ViTSize(1280, 32, 16)}
"""The published sizes by name, all for a long side of 1024 pixels."""


class PatchEmbed(nn.Module):
    """Patches of 16 x 16 pixels to tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, H/16, W/16, C]."""
        out: Tensor = self.proj(x)
        return out.permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head attention with a learned bias by row offset and by column offset.

    cells: per side, of a window or of the largest image.
    """

    def __init__(self, dim: int, heads: int, cells: int) -> None:
        super().__init__()
        self.heads = heads
        self.cells = cells
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * cells - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * cells - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the cells of each map [B, h, w, C], h and w at most `cells`."""
        b, h, w, c = x.shape
        q, k, v = (
            part.reshape(b, h * w, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        bias = self._bias(q.reshape(b, self.heads, h, w, c // self.heads))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, h, w, c))
        return out

    def _bias(self, q: Tensor) -> Tensor:
        """Position bias [B, heads, h * w, h * w] of queries [B, heads, h, w, c]."""
        b, heads, h, w, _ = q.shape
        rows = torch.einsum("bnhwc,hkc->bnhwk", q, self._by_offset(self.rel_pos_h, h))
        columns = torch.einsum("bnhwc,wkc->bnhwk", q, self._by_offset(self.rel_pos_w, w))
        both = rows[..., :, None] + columns[..., None, :]
        return both.reshape(b, heads, h * w, h * w)

    def _by_offset(self, table: Tensor, cells: int) -> Tensor:
        """Rows of a table by query and key, [cells, cells, c]."""
        at = torch.arange(cells, device=table.device)
        return table[at[:, None] - at + (self.cells - 1)]


class Block(nn.Module):
    """Attention, in windows or (window 0) global, and an MLP; norms before both."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads, window or _CELLS)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = TransformerMLP(dim, 4 * dim, gelu=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] to the same shape; windows beyond the border are padded with zeros."""
        side, y = self.window, self.norm1(x)
        if side:
            windows = to_windows(y, side).reshape(-1, side, side, x.shape[-1])
            x = x + from_windows(self.attn(windows).flatten(1, 2), side, x)
        else:
            x = x + self.attn(y)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PlainViTEncoder(nn.Module):
    """Image encoder of SAM.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of 16, at most 1024. Positions are
    learned for the 64 x 64 cells of a padded square; a smaller input is the top left part of one
    and takes the positions of its cells, so nothing is interpolated.
    """

    stride = PATCH
    multiple = PATCH

    def __init__(self, size: ViTSize, embed_dim: int = 256) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(size.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, _CELLS, _CELLS, size.dim))
        self._tapped: Collection[int] = size.global_blocks[:2]
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, 0 if index in size.global_blocks else _WINDOW)
            for index in range(size.depth)
        )
        self.neck = sam_neck(size.dim, embed_dim)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The embedding of an image [B, 3, H, W] and intermediate features.

        s8 and s16 are the outputs of the first and second global block, both at stride 16: this
        network has no finer map.
        """
        x = self.patch_embed(x)
        _, h, w, _ = x.shape
        x = x + self.pos_embed[:, :h, :w]
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._tapped:
                tapped.append(x.permute(0, 3, 1, 2))
        s8, s16 = tapped
        embedding = cast(Tensor, self.neck(x.permute(0, 3, 1, 2)))
        return EncoderFeatures(embedding, None, None, s8, s16)

    def forward(self, x: Tensor) -> ImageFeatures:
        """The embedding only; the published decoder takes no skips."""
        return ImageFeatures(self.all_features(x).embedding, None, None)
