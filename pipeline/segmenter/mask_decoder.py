"""SAM's two-way transformer and mask decoder (torch).

Architecture and key names: Segment Anything (arXiv 2304.02643). Embedding dimension, depth and MLP
size are parameters, so one class serves the 256-dim published models and the 128-dim `lite`, which
also adds the encoder's stride-4 and stride-8 features while upsampling (as SAM 2 does).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.layers import MLP, LayerNorm2d, TransformerMLP

MASK_TOKENS = 4  # token 0: one mask for an unambiguous prompt; 1..3: whole, part, subpart


class DecoderOutput(NamedTuple):
    """masks: logits [B, 4, 4h, 4w]; iou: predictions [B, 4]; tokens: [B, 4, C]."""

    masks: Tensor
    iou: Tensor
    tokens: Tensor


class Upsampling(NamedTuple):
    """Layers from the embedding's grid to one four times as fine; GELU follows norm and to_s4.

    norm: over the channels of a cell, or (`nn.GroupNorm` of one group) of the whole map.
    """

    to_s8: nn.ConvTranspose2d
    norm: LayerNorm2d | nn.GroupNorm
    to_s4: nn.ConvTranspose2d


class Attention(nn.Module):
    """Multi-head attention whose inner dimension may be smaller than the embedding."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def _split(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.reshape(b, n, self.heads, c // self.heads).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q [B, n, C] to k and v [B, m, C]."""
        return self.attend(self.q_proj(q), self.k_proj(k), self.v_proj(v))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of already projected q, k, v [B, n, inner]."""
        q, k, v = self._split(q), self._split(k), self._split(v)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(mixed)
        return out


class TwoWayBlock(nn.Module):
    """Self-attention, tokens to image, MLP, image to tokens."""

    def __init__(self, dim: int, heads: int, mlp: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp: nn.Module = TransformerMLP(dim, mlp)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)
        self.first = first

    def attend_to_tokens(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        """Self-attention of tokens [B, n, C]; in the first block without positions and residual."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        out: Tensor = self.norm1(tokens)
        return out

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens [B, n, C] and image [B, hw, C]."""
        tokens = self.attend_to_tokens(tokens, token_pe)
        located = image + image_pe
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, located, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image + self.cross_attn_image_to_token(located, tokens + token_pe, tokens)
        )
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Exchange between prompt tokens [B, n, C] and image tokens [B, hw, C]."""

    def __init__(
        self, depth: int, dim: int, heads: int, mlp: int, block: type[TwoWayBlock] = TwoWayBlock
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block(dim, heads, mlp, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens and image; returns both."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class MaskDecoderBase(nn.Module):
    """What the mask decoders share.

    Subclasses make the kernels' and the score's networks, and the upsampling under its published
    names.
    """

    bounded_iou = False

    output_hypernetworks_mlps: nn.ModuleList
    iou_prediction_head: nn.Module

    def __init__(self, dim: int, transformer: TwoWayTransformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)

    @property
    def upsampling(self) -> Upsampling:
        """The layers that upsample."""
        raise NotImplementedError

    def upscale(self, image: Tensor, skip_s4: Tensor | None, skip_s8: Tensor | None) -> Tensor:
        """Upsample image tokens [B, C, h, w] to [B, C/8, 4h, 4w], adding the encoder's skips."""
        to_s8, norm, to_s4 = self.upsampling
        x = to_s8(image)
        if skip_s8 is not None:
            x = x + skip_s8
        x = to_s4(F.gelu(norm(x)))
        if skip_s4 is not None:
            x = x + skip_s4
        return F.gelu(x)

    def kernels(self, mask_tokens: Tensor) -> Tensor:
        """Kernels of the mask tokens on the upscaled image, [B, 4, C / 8]."""
        heads = enumerate(self.output_hypernetworks_mlps)
        return torch.stack([head(mask_tokens[:, i]) for i, head in heads], dim=1)

    def iou(self, iou_token: Tensor) -> Tensor:
        """Predicted IoU [B, 4] of the masks from the token [B, C]."""
        iou: Tensor = self.iou_prediction_head(iou_token)
        return torch.sigmoid(iou) if self.bounded_iou else iou

    def forward(
        self,
        embedding: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        skip_s4: Tensor | None = None,
        skip_s8: Tensor | None = None,
    ) -> DecoderOutput:
        """Decode B prompts.

        embedding [1 or B, C, h, w], image_pe [1, C, h, w], sparse [B, n, C], dense [B, C, h, w],
        skips as in `ImageFeatures` with batch 1 or B.
        """
        batch = sparse.shape[0]
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)
        tokens = torch.cat([output[None].expand(batch, -1, -1), sparse], dim=1)
        image = embedding + dense
        _, c, h, w = image.shape
        tokens, flat = self.transformer(
            image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens
        )
        upscaled = self.upscale(flat.transpose(1, 2).reshape(-1, c, h, w), skip_s4, skip_s8)
        mask_tokens = tokens[:, 1 : 1 + MASK_TOKENS]
        kernels = self.kernels(mask_tokens)
        masks = (kernels @ upscaled.flatten(2)).reshape(batch, MASK_TOKENS, 4 * h, 4 * w)
        return DecoderOutput(masks, self.iou(tokens[:, 0]), mask_tokens)


class MaskDecoder(MaskDecoderBase):
    """SAM's mask decoder: masks and their predicted IoU from an embedding and encoded prompts."""

    def __init__(
        self,
        dim: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp: int = 2048,
        iou_hidden: int = 256,
        bounded_iou: bool = False,
    ) -> None:
        super().__init__(dim, TwoWayTransformer(depth, dim, heads, mlp))
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = MLP(dim, iou_hidden, MASK_TOKENS, 3)
        self.bounded_iou = bounded_iou

    @property
    def upsampling(self) -> Upsampling:
        """The layers that upsample; their GELU has no weights."""
        to_s8, norm, _, to_s4, _ = self.output_upscaling
        return Upsampling(
            cast(nn.ConvTranspose2d, to_s8),
            cast(LayerNorm2d, norm),
            cast(nn.ConvTranspose2d, to_s4),
        )
