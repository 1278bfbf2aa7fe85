"""EfficientSAM's prompt encoder and mask decoder (torch).

EfficientSAM: arXiv 2312.00863 (github.com/yformer/EfficientSAM), with its parameter names. It takes
points and boxes as six labeled points and has no mask prompt. Its decoder is SAM's with GELU in
place of ReLU, a residual in the first self-attention, and a norm over the whole map.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD, POSITIVE
from maskstream.pipeline.segmenter.mask_decoder import (
    MASK_TOKENS,
    MaskDecoderBase,
    TwoWayBlock,
    TwoWayTransformer,
    Upsampling,
)
from maskstream.pipeline.segmenter.prompt_encoder import PromptEncoderBase

POINTS = 6
"""Labeled points of every prompt; fewer are padded."""

_PAD_XY = -0.5 / 1024  # the authors pad with the pixel (-1, -1) of a side of 1024


class PointPromptEncoder(PromptEncoderBase):
    """Six labeled points to six tokens [B, 6, C]; further points are left out.

    A negative point has a position but no learned label, as in the authors' code.
    """

    mask_prompts = False

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__(embed_dim)
        self.invalid_points = nn.Embedding(1, embed_dim)
        self.point_embeddings = nn.Embedding(1, embed_dim)
        self.bbox_top_left_embeddings = nn.Embedding(1, embed_dim)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, embed_dim)

    def tokens(self, xy: Tensor, labels: Tensor) -> Tensor:
        """As `PromptEncoderBase.tokens`, but always six; `PAD` may be anywhere."""
        xy = F.pad(xy, (0, 0, 0, POINTS))[:, :POINTS]
        label = F.pad(labels, (0, POINTS), value=PAD)[:, :POINTS, None]
        encoded: Tensor = self.pe_layer(torch.where(label == PAD, _PAD_XY, xy))
        for value, embedding in (
            (PAD, self.invalid_points),
            (POSITIVE, self.point_embeddings),
            (BOX_TOP_LEFT, self.bbox_top_left_embeddings),
            (BOX_BOTTOM_RIGHT, self.bbox_bottom_right_embeddings),
        ):
            encoded = encoded + torch.where(label == value, embedding.weight[0], 0.0)
        return encoded

    def dense(
        self, xy: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor, grid: Tensor
    ) -> Tensor:
        """Zeros [B, C, 1, 1]: masks are no prompts here."""
        return xy.new_zeros(xy.shape[0], self.embed_dim, 1, 1)


class GeluMLP(nn.Module):
    """Linear layers with GELU after each but the last, `fc`."""

    def __init__(self, cin: int, hidden: int, cout: int, hidden_layers: int) -> None:
        super().__init__()
        sizes = [cin] + [hidden] * (hidden_layers - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.GELU()) for size in sizes
        )
        self.fc = nn.Linear(hidden, cout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., cin] to [..., cout]."""
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.fc(x)
        return out


class ResidualTwoWayBlock(TwoWayBlock):
    """A block whose self-attention always adds to its input, positions included."""

    def __init__(self, dim: int, heads: int, mlp: int, first: bool) -> None:
        super().__init__(dim, heads, mlp, first)
        self.mlp = GeluMLP(dim, mlp, dim, 1)

    def attend_to_tokens(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        """Self-attention of tokens [B, n, C]; the first block has no positions."""
        x = tokens if self.first else tokens + token_pe
        out: Tensor = self.norm1(x + self.self_attn(x, x, x))
        return out


class EfficientSamMaskDecoder(MaskDecoderBase):
    """Masks and their predicted IoU from an image embedding and encoded points."""

    def __init__(self, dim: int = 256, depth: int = 2, heads: int = 8, mlp: int = 2048) -> None:
        super().__init__(dim, TwoWayTransformer(depth, dim, heads, mlp, ResidualTwoWayBlock))
        self.final_output_upscaling_layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(dim, dim // 4, 2, 2), nn.GroupNorm(1, dim // 4), nn.GELU()
                ),
                nn.Sequential(nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2), nn.GELU()),
            ]
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            GeluMLP(dim, dim, dim // 8, 2) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = GeluMLP(dim, dim, MASK_TOKENS, 2)

    @property
    def upsampling(self) -> Upsampling:
        """The layers that upsample; their GELU has no weights."""
        first, second = (cast(nn.Sequential, x) for x in self.final_output_upscaling_layers)
        return Upsampling(
            cast(nn.ConvTranspose2d, first[0]),
            cast(nn.GroupNorm, first[1]),
            cast(nn.ConvTranspose2d, second[0]),
        )
