"""The mask decoder optimized for inference: the weights of a mask decoder, fewer operations.

Three algebraic changes, exact but for rounding:

- Tokens are few and image cells many, so a projection of the image that only meets tokens in a
  product is applied to the tokens instead: q · (W x) = (Wᵀ q) · x. Heads are kept apart by
  spreading every token to one row a head, zero outside that head's channels.
- What depends on the image alone (`ImageSides`, in the encoder graph) or on the grid alone
  (`positions`, computed once for a frame size) is an input of the first layer's products.
- Upsampling by 2 x 2 transposed convolutions is a linear layer on tokens; pixels are put in place
  once, in the finished masks.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.layers import LayerNorm2d
from maskstream.pipeline.segmenter.mask_decoder import (
    MASK_TOKENS,
    Attention,
    MaskDecoderBase,
    TwoWayBlock,
)
from maskstream.pipeline.segmenter.prompt_encoder import PromptEncoderBase


class _SpreadHeads(nn.Module):
    """Turns rows of all heads [B, n, C] into one per head and token [B, heads * n, C], and back."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        owner = torch.arange(channels) // (channels // heads)
        own = owner == torch.arange(heads)[:, None]
        self.register_buffer("own", own.float()[None, :, None])  # [1, heads, 1, C]
        self.own: Tensor
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Spread [B, n, C] to [B, heads * n, C], zero outside the row's own head."""
        return (x[:, None] * self.own).flatten(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """Join [B, heads * n, C] to [B, n, C], taking each row's own head's channels."""
        rows = x.reshape(x.shape[0], self.heads, -1, x.shape[2])
        return (rows * self.own).sum(1)


def _attend_over_cells(scores: Tensor, image: Tensor) -> Tensor:
    """Mean of `image` [B, T, C] per row, weighted by the softmax of scores [B, T, rows]."""
    mixed: Tensor = torch.softmax(scores.transpose(1, 2), dim=-1) @ image
    return mixed


class ImageSides(nn.Module):
    """The first layer's image-only projections, [1, T, 3 * inner]: key, value, query.

    `image` is the embedding as tokens, [1, T, C], plus the "no mask prompt" vector where the
    network has one that is independent of the prompts (`base`).
    """

    def __init__(self, prompt_encoder: PromptEncoderBase, decoder: MaskDecoderBase) -> None:
        super().__init__()
        weight, bias = _side_projections(decoder)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("base", prompt_encoder.no_mask())
        self.weight: Tensor
        self.bias: Tensor
        self.base: Tensor

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image tokens and their projections."""
        image = embedding.flatten(2).transpose(1, 2) + self.base
        return image, F.linear(image, self.weight, self.bias)


def _block(decoder: MaskDecoderBase, index: int) -> TwoWayBlock:
    return cast(TwoWayBlock, decoder.transformer.layers[index])


def _side_projections(decoder: MaskDecoderBase) -> tuple[Tensor, Tensor]:
    layer = _block(decoder, 0)
    read, write = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    projections = (read.k_proj, read.v_proj, write.q_proj)
    weight = torch.cat([p.weight.detach() for p in projections])
    return weight, torch.cat([p.bias.detach() for p in projections])


def skip_tokens(skip: Tensor, steps: int) -> Tensor:
    """Reorder a map [1, C, 2^s h, 2^s w] to tokens [1, 4^s h w, C] in upsampling order."""
    _, c, h, w = skip.shape
    twos = (2,) * steps
    x = skip.reshape(1, c, h // 2**steps, *twos, w // 2**steps, *twos)
    y = [2 + i for i in range(steps + 1)]
    x_axes = [3 + steps + i for i in range(steps + 1)]
    order = [axis for pair in zip(y, x_axes, strict=True) for axis in pair]
    return x.permute(0, *order, 1).flatten(1, -2)


class _LinearUpsampling(nn.Module):
    """A 2 x 2 transposed convolution as a linear layer, [B, n, Cin] to [B, 4 n, Cout]."""

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.channels = conv.out_channels
        weight = conv.weight.detach().permute(2, 3, 1, 0)  # dy, dx, Cout, Cin
        self.register_buffer("weight", weight.reshape(-1, conv.in_channels))
        bias = torch.zeros(self.channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer("bias", bias.repeat(4))
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Upsample; the four pixels of a cell are consecutive: dy, then dx."""
        return F.linear(x, self.weight, self.bias).reshape(x.shape[0], -1, self.channels)


def _normalized(norm: LayerNorm2d | nn.GroupNorm, x: Tensor) -> Tensor:
    """A norm of maps on tokens [B, n, C]."""
    if isinstance(norm, nn.GroupNorm):  # of one group: over all tokens
        centered = x - x.mean((1, 2), keepdim=True)
        variance = centered.pow(2).mean((1, 2), keepdim=True)
        return norm.weight * (centered * torch.rsqrt(variance + norm.eps)) + norm.bias
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


class FastMaskDecoder(nn.Module):
    """Decodes prompts to masks on prepared image tokens, as `MaskDecoderBase.forward`."""

    def __init__(self, prompt_encoder: PromptEncoderBase, decoder: MaskDecoderBase) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.decoder = decoder
        transformer = decoder.transformer
        self.blocks = [_block(decoder, i) for i in range(len(transformer.layers))]
        attention = self.blocks[0].cross_attn_token_to_image
        inner = attention.q_proj.out_features
        self.spread = _SpreadHeads(inner, attention.heads)
        self.scale = (inner // attention.heads) ** -0.5
        self.register_buffer("base", prompt_encoder.no_mask())
        self.base: Tensor
        self.register_buffer("sides_weight", _side_projections(decoder)[0])
        self.sides_weight: Tensor
        to_s8, self.norm, to_s4 = decoder.upsampling
        self.upsample_s8 = _LinearUpsampling(to_s8)
        self.upsample_s4 = _LinearUpsampling(to_s4)

    def positions(self, grid: Tensor) -> Tensor:
        """Projections of the cells' positional encoding, [1, T, (2 * layers + 1) * inner].

        For every layer its key and query, then the final attention's key; queries with their bias.
        """
        pe = self.prompt_encoder.dense_pe(grid).flatten(2).transpose(1, 2)
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for block in self.blocks:
            key = block.cross_attn_token_to_image.k_proj
            query = block.cross_attn_image_to_token.q_proj
            bias = torch.zeros_like(query.bias) if block.first else query.bias  # in `ImageSides`
            weights += [key.weight, query.weight]
            biases += [torch.zeros_like(bias), bias]
        key = self.decoder.transformer.final_attn_token_to_image.k_proj
        weights.append(key.weight)
        biases.append(torch.zeros_like(key.bias))
        return F.linear(pe, torch.cat(weights), torch.cat(biases))

    def dense(
        self, xy: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor, grid: Tensor
    ) -> Tensor:
        """Dense prompt embedding to add to the image, [B, T, C] (zero without a mask prompt)."""
        dense = self.prompt_encoder.dense(xy, labels, mask, has_mask, grid)
        return dense.flatten(2).transpose(1, 2) - self.base

    def dense_sides(self, dense: Tensor) -> Tensor:
        """Contribution of `dense` to the image's projections."""
        return F.linear(dense, self.sides_weight)

    def _read(self, attention: Attention, q: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Tokens attend to the image [B, T, C]. The key's bias is omitted: softmax cancels it."""
        rows = self.spread(attention.q_proj(q) * self.scale)
        folded = rows @ attention.k_proj.weight
        scores = image @ folded.transpose(1, 2) + positions @ rows.transpose(1, 2)
        mixed = self.spread.join(attention.v_proj(_attend_over_cells(scores, image)))
        out: Tensor = attention.out_proj(mixed)
        return out

    def _read_projected(
        self, attention: Attention, q: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        rows = self.spread(attention.q_proj(q) * self.scale)
        mixed = _attend_over_cells(key @ rows.transpose(1, 2), value)
        out: Tensor = attention.out_proj(self.spread.join(mixed))
        return out

    def _write(self, attention: Attention, scores: Tensor, values: Tensor) -> Tensor:
        """The image attends to the tokens: scores [B, T, heads * n], values [B, n, C]."""
        by_head = scores.reshape(*scores.shape[:2], attention.heads, -1)
        weights = torch.softmax(by_head, dim=-1).flatten(2)
        rows = self.spread(attention.v_proj(values)) @ attention.out_proj.weight.transpose(0, 1)
        mixed: Tensor = weights @ rows
        return mixed + attention.out_proj.bias

    def transform(
        self, image: Tensor, sides: Tensor, positions: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`TwoWayTransformer.forward` on prepared inputs: tokens [B, n, C] and image [B, T, C]."""
        transformer = self.decoder.transformer
        token_pe = tokens
        places = positions.chunk(2 * len(self.blocks) + 1, dim=-1)
        for index, block in enumerate(self.blocks):
            read, write = block.cross_attn_token_to_image, block.cross_attn_image_to_token
            place_k, place_q = places[2 * index], places[2 * index + 1]
            tokens = block.attend_to_tokens(tokens, token_pe)
            if block.first:
                key, value, query = sides.chunk(3, dim=-1)
                attended = self._read_projected(read, tokens + token_pe, key + place_k, value)
            else:
                attended = self._read(read, tokens + token_pe, image, place_k)
            tokens = block.norm2(tokens + attended)
            tokens = block.norm3(tokens + block.mlp(tokens))
            keys = self.spread(write.k_proj(tokens + token_pe) * self.scale)
            if block.first:
                scores = (query + place_q) @ keys.transpose(1, 2)
            else:
                folded = keys @ write.q_proj.weight
                scores = image @ folded.transpose(1, 2) + place_q @ keys.transpose(1, 2)
            image = block.norm4(image + self._write(write, scores, tokens))
        final = transformer.final_attn_token_to_image
        tokens = tokens + self._read(final, tokens + token_pe, image, places[-1])
        return transformer.norm_final_attn(tokens), image

    def forward(
        self,
        image: Tensor,
        sides: Tensor,
        positions: Tensor,
        sparse: Tensor,
        size_hw: tuple[int, int],
        skip_s4: Tensor | None = None,
        skip_s8: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode masks [B, 4, 4h, 4w] and IoU [B, 4]; size_hw is the size of the masks."""
        decoder = self.decoder
        batch = sparse.shape[0]
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output[None].expand(batch, -1, -1), sparse], dim=1)
        tokens, image = self.transform(image, sides, positions, tokens)
        x = self.upsample_s8(image)
        if skip_s8 is not None:
            x = x + skip_s8
        x = self.upsample_s4(F.gelu(_normalized(self.norm, x)))
        if skip_s4 is not None:
            x = x + skip_s4
        kernels = decoder.kernels(tokens[:, 1 : 1 + MASK_TOKENS])
        masks = kernels @ F.gelu(x).transpose(1, 2)  # [B, 4, 16 T]
        h, w = size_hw
        placed = masks.reshape(-1, MASK_TOKENS, h // 4, w // 4, 2, 2, 2, 2)
        masks = placed.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(-1, MASK_TOKENS, h, w)
        return masks, decoder.iou(tokens[:, 0])
