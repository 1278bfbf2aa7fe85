"""SAM's prompt encoder (torch): points, boxes and a mask prompt become tokens and a dense map.

Architecture and key names: Segment Anything (arXiv 2304.02643), shared by TinySAM, MobileSAM and
EfficientViT-SAM. `drawn_prompts` is this project's addition for `lite`.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    PAD,
    POSITIVE,
)
from maskstream.pipeline.segmenter.layers import LayerNorm2d


class RandomFourierPositions(nn.Module):
    """Random Fourier features of coordinates in 0..1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, xy: Tensor) -> Tensor:
        """Encode xy [..., 2] to [..., 2 * features]."""
        phase = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def cell_centers(height: int, width: int) -> Tensor:
    """Centers of a grid's cells as (x, y), normalized by the padded square; [2, H, W]."""
    side = max(height, width)
    y = (torch.arange(height) + 0.5) / side
    x = (torch.arange(width) + 0.5) / side
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


class PromptEncoderBase(nn.Module):
    """What the prompt encoders share: prompts to sparse tokens [B, N, C] and a dense map.

    drawn_prompts: see `PromptEncoder`. mask_prompts: whether it takes masks as prompts.
    """

    drawn_prompts = False
    mask_prompts = True

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.pe_layer = RandomFourierPositions(embed_dim // 2)

    def dense_pe(self, grid: Tensor) -> Tensor:
        """Positional encoding [1, C, h, w] of the embedding's grid; `grid` as in `forward`."""
        coarse = F.avg_pool2d(grid[None], 4)
        encoded: Tensor = self.pe_layer(coarse.permute(0, 2, 3, 1))
        return encoded.permute(0, 3, 1, 2)

    def tokens(self, xy: Tensor, labels: Tensor) -> Tensor:
        """Tokens [B, N, C] of points xy [B, N, 2] (0..1 of the padded square), labels [B, N].

        Labels: -1 padding, 0 negative, 1 positive, 2 and 3 the corners of a box.
        """
        raise NotImplementedError

    def dense(
        self, xy: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor, grid: Tensor
    ) -> Tensor:
        """The dense map, [B, C, h, w] or [B, C, 1, 1]; arguments as `forward`."""
        raise NotImplementedError

    def no_mask(self) -> Tensor:
        """What `dense` is in every cell without a mask prompt, if it is a constant; [1, 1, C]."""
        return torch.zeros(1, 1, self.embed_dim)

    def forward(
        self, xy: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor, grid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        xy [B, N, 2] in 0..1 of the padded square; labels [B, N]; mask logits [B, 1, 4h, 4w];
        has_mask [B] (1 where the mask prompt is used, 0 where it is ignored); grid [2, 4h, 4w]:
        `cell_centers` of the mask's cells (an input, so that graphs keep any size).
        """
        return self.tokens(xy, labels), self.dense(xy, labels, mask, has_mask, grid)


class PromptEncoder(PromptEncoderBase):
    """SAM's prompt encoder.

    With `drawn_prompts` the points and the box are also drawn as low-resolution maps (positive,
    negative, box), concatenated with the previous mask and passed through the same convolutions.
    """

    def __init__(
        self, embed_dim: int = 256, mask_channels: int = 16, drawn_prompts: bool = False
    ) -> None:
        super().__init__(embed_dim)
        self.drawn_prompts = drawn_prompts
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        cin = 4 if drawn_prompts else 1
        half = mask_channels // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(cin, half * cin, 2, 2),
            LayerNorm2d(half * cin),
            nn.GELU(),
            nn.Conv2d(half * cin, mask_channels * cin, 2, 2),
            LayerNorm2d(mask_channels * cin),
            nn.GELU(),
            nn.Conv2d(mask_channels * cin, embed_dim, 1),
        )
        if drawn_prompts:
            self.mask_downscaling.append(nn.BatchNorm2d(embed_dim))
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def tokens(self, xy: Tensor, labels: Tensor) -> Tensor:
        """As `PromptEncoderBase.tokens`."""
        encoded: Tensor = self.pe_layer(xy)
        label = labels[..., None]
        encoded = torch.where(label == PAD, torch.zeros_like(encoded), encoded)
        encoded = encoded + torch.where(label == PAD, self.not_a_point_embed.weight[0], 0.0)
        for value, embedding in enumerate(self.point_embeddings):
            weight = cast(nn.Embedding, embedding).weight
            encoded = encoded + torch.where(label == value, weight[0], 0.0)
        return encoded

    def draw(self, xy: Tensor, labels: Tensor, grid: Tensor) -> Tensor:
        """Draw prompts as maps [B, 3, 4h, 4w]: positive points, negative points, box; 0..1."""
        cell = 2 * grid[0, 0, 0]  # the first cell's center is half a cell from the border
        from_point = grid[None, None] - xy[:, :, :, None, None]
        squared = (from_point / (2.5 * cell)).pow(2).sum(2)
        spots = torch.exp(-0.5 * squared)  # [B, N, H, W]
        label = labels[:, :, None, None]
        positive = (spots * (label == POSITIVE)).amax(1)
        negative = (spots * (label == NEGATIVE)).amax(1)
        inside = torch.ones_like(positive)
        has_box = (label == BOX_TOP_LEFT).to(xy.dtype).amax(1)
        for corner, sign in ((BOX_TOP_LEFT, 1.0), (BOX_BOTTOM_RIGHT, -1.0)):
            at = (xy * (labels == corner)[..., None]).sum(1)[:, :, None, None]
            edge = torch.sigmoid(sign * (grid[None] - at) / cell)
            inside = inside * edge[:, 0] * edge[:, 1]
        return torch.stack([positive, negative, inside * has_box], dim=1)

    def dense(
        self, xy: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor, grid: Tensor
    ) -> Tensor:
        """The dense map [B, C, h, w]; arguments as `forward`."""
        has = has_mask[:, None, None, None]
        absent = (1 - has) * self.no_mask_embed.weight[0][:, None, None]
        if self.drawn_prompts:
            drawn = self.draw(xy, labels, grid)
            previous = torch.tanh(mask * 0.25) * has
            given: Tensor = self.mask_downscaling(torch.cat([previous, drawn], dim=1))
        else:
            given = has * self.mask_downscaling(mask)
        return given + absent

    def no_mask(self) -> Tensor:
        """The vector that stands for "no mask prompt"; zero where prompts are drawn."""
        if self.drawn_prompts:
            return super().no_mask()
        return self.no_mask_embed.weight.detach()[None]
