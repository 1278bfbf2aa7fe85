"""The network of the learned memory (torch; not imported at inference).

Keys from the image and values from image and mask are as in STCN (arXiv 2106.05210), objects are
combined by STM's soft aggregation (arXiv 1904.00607). In addition, prompted and recent frames are
read separately, so that predictions are compared with the prompts; the propagated mask is an input;
and a score predicts whether the object is present.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEY = 64  # channels of keys and queries
LIKENESS = 16  # channels that compare a query with its match
VALUE = 24  # channels of an object's values; the last two are its own and the others' mask
FEATURE = 48
WIDTH = 64


class LayerNormMap(nn.Module):
    """Layer norm over the channels of a map [B, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        centered = x - x.mean(1, keepdim=True)
        scaled = centered * torch.rsqrt(centered.square().mean(1, keepdim=True) + 1e-6)
        return scaled * self.weight.to(x.dtype) + self.bias.to(x.dtype)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        out: Tensor = F.relu(x + self.second(F.relu(self.first(x))))
        return out


def unit(x: Tensor) -> Tensor:
    """Normalize a map [B, C, h, w] along the channels."""
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6)


def twice(x: Tensor) -> Tensor:
    """Upsample a map by 2, bilinearly."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """Keys, queries and features of a frame for the memory.

    key, query: [B, KEY, h, w] at stride 8; the query is scaled by a learned temperature. features:
    [B, FEATURE, h, w] at stride 8. likeness: [B, LIKENESS, h, w]. s4: [B, 16, 2h, 2w].
    """

    key: Tensor
    query: Tensor
    likeness: Tensor
    features: Tensor
    s4: Tensor


class Neck(nn.Module):
    """What keys and features gain by looking at neighboring cells and at stride 16.

    Its outputs begin at zero, so a network that was trained without it begins where it was.
    """

    def __init__(self, s8: int, s16: int) -> None:
        super().__init__()
        self.enter_s16 = nn.Conv2d(s16, WIDTH, 1)
        self.deep = nn.Sequential(ResidualBlock(WIDTH), ResidualBlock(WIDTH))
        self.lift = nn.Conv2d(WIDTH, FEATURE, 1)
        self.enter_s8 = nn.Conv2d(s8, FEATURE, 1)
        self.fine = ResidualBlock(FEATURE)
        self.key = nn.Conv2d(FEATURE, KEY, 1, bias=False)
        self.feature = nn.Conv2d(FEATURE, FEATURE, 1, bias=False)
        nn.init.zeros_(self.key.weight)
        nn.init.zeros_(self.feature.weight)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to keys [B, KEY, h, w] and features [B, FEATURE, h, w].

        fine: maps of stride 8; coarse: of stride 16.
        """
        deep = self.deep(F.relu(self.enter_s16(coarse)))
        x = self.fine(F.relu(self.enter_s8(fine) + twice(self.lift(deep))))
        return self.key(x), self.feature(x)


class KeyEncoder(nn.Module):
    """Encoder features of a frame to keys, queries and reduced features."""

    def __init__(
        self, s8: int = 40, s16: int = 112, embedding: int = 128, skip_s8: int = 32
    ) -> None:
        super().__init__()
        self.key_s8 = nn.Conv2d(s8, KEY, 1, bias=False)
        self.key_s16 = nn.Conv2d(s16, KEY, 1, bias=False)
        self.feature_s8 = nn.Conv2d(s8 + skip_s8, FEATURE, 1)
        self.feature_s16 = nn.Conv2d(s16 + embedding, FEATURE, 1)
        self.norm = LayerNormMap(FEATURE)
        self.neck = Neck(s8 + skip_s8, s16 + embedding)
        self.likeness = nn.Conv2d(KEY, LIKENESS, 1, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())

    def forward(
        self, s4: Tensor, s8: Tensor, skip_s8: Tensor, s16: Tensor, emb: Tensor
    ) -> FrameKeys:
        """Maps as `FrameFeatures` names them, [B, C, h, w] each."""
        fine, coarse = unit(s8), unit(s16)
        at_s8, at_s16 = torch.cat([4 * fine, skip_s8], 1), torch.cat([4 * coarse, emb], 1)
        more_key, more_features = self.neck(at_s8, at_s16)
        key = self.key_s8(fine) + twice(self.key_s16(coarse)) + more_key
        reduced = self.feature_s8(at_s8) + twice(self.feature_s16(at_s16))
        features = self.norm(reduced + more_features)
        return FrameKeys(key, key * self.log_scale.exp(), self.likeness(key), features, s4)


class ValueEncoder(nn.Module):
    """Values of an object on a frame, which are remembered with the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(FEATURE + 6, FEATURE, 3, padding=1)
        self.block = ResidualBlock(FEATURE)
        self.leave = nn.Conv2d(FEATURE, VALUE - 2, 1)

    def forward(self, features: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        """Values [B, VALUE, h, w].

        features: [B, FEATURE, h, w]. mask, others: of the object and of all others, [B, 1, 2h, 2w].
        """
        parts = F.pixel_unshuffle(mask, 2)
        own, beside = parts.mean(1, keepdim=True), F.avg_pool2d(others, 2)
        x = F.relu(self.enter(torch.cat([features, parts, own, beside], 1)))
        return torch.cat([self.leave(self.block(x)), own, beside], 1)


class MaskHead(nn.Module):
    """Readout of an object to its mask at stride 4 and a presence score."""

    def __init__(self, s4: int = 16) -> None:
        super().__init__()
        given = FEATURE + 2 * VALUE + 2 * LIKENESS + 4
        self.enter = nn.Conv2d(given, WIDTH, 1)
        self.fine = ResidualBlock(WIDTH)
        self.coarse = nn.Sequential(ResidualBlock(WIDTH), ResidualBlock(WIDTH))
        self.whole = nn.Linear(2 * WIDTH, WIDTH)
        self.again = ResidualBlock(WIDTH)
        self.narrow = nn.Conv2d(WIDTH, 4 * WIDTH // 2, 1)
        self.sharpen = nn.Conv2d(WIDTH // 2 + s4 + 1, WIDTH // 2, 3, padding=1)
        self.mask = nn.Conv2d(WIDTH // 2, 1, 3, padding=1)
        self.start = nn.Conv2d(2, 1, 1)  # initialized to the readout of the prompted frames
        self.presence = nn.Sequential(nn.Linear(2 * WIDTH + 4, 32), nn.ReLU(), nn.Linear(32, 1))
        with torch.no_grad():
            self.mask.weight.mul_(0.1)
            self.start.weight.copy_(torch.tensor([4.0, 2.0])[None, :, None, None])
            nn.init.constant_(cast(Tensor, self.start.bias), -2.5)

    def forward(
        self, read: Tensor, propagated: Tensor, beside: Tensor, known: Tensor, s4: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, 1, 2h, 2w] and the logit of presence [B].

        read: features, likenesses and readouts, [B, C, h, w]; values of prompted and of recent
        frames end with the object's own and the others' share. propagated, beside: the propagated
        masks of the object and of all others, [B, 1, 2h, 2w] 0..1. known: whether the propagated
        mask is valid, and whether recent frames were read, [B, 2].
        """
        small = torch.cat([F.avg_pool2d(propagated, 2), F.avg_pool2d(beside, 2)], 1)
        flags = known[:, :, None, None].expand(-1, -1, *small.shape[-2:])
        own = torch.stack([read[:, -VALUE - 2], read[:, -2]], 1)
        x = self.fine(F.relu(self.enter(torch.cat([read, small, flags], 1))))
        deep = self.coarse(F.avg_pool2d(x, 2))
        pooled = torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1)
        deep = deep + F.relu(self.whole(pooled))[:, :, None, None]
        x = self.again(x + F.interpolate(deep, scale_factor=2.0))
        fine = torch.cat(
            [F.pixel_shuffle(self.narrow(x), 2), s4, propagated * known[:, :1, None, None]], 1
        )
        logits = self.mask(F.relu(self.sharpen(fine))) + twice(self.start(own))
        shares = torch.cat([logits.mean((2, 3)), logits.amax((2, 3)), known], 1)
        return logits, self.presence(torch.cat([pooled, shares], 1))[:, 0]


class MemoryNetwork(nn.Module):
    """Key encoder (`keys`), value encoder and mask head, with the memory readout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeyEncoder()
        self.values = ValueEncoder()
        self.head = MaskHead()

    def read(self, frame: FrameKeys, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attention readout of remembered cells, [B, Cv, h, w].

        keys: [B, N, KEY]; values: [B, N, Cv]; bias: [B, N], added to the similarities.
        """
        batch, _, height, width = frame.query.shape
        query = frame.query.flatten(2).transpose(1, 2)
        found = F.scaled_dot_product_attention(
            query[:, None], keys[:, None], values[:, None], bias[:, None, None], scale=1.0
        )
        return found[:, 0].transpose(1, 2).reshape(batch, -1, height, width)


def soft_aggregation(logits: Tensor, *, limit: float = 12.0) -> Tensor:
    """Soft aggregation of objects: logits [B, O, h, w] to joint logits [B, 1 + O, h, w].

    Channel 0 is the background. Softmax over the channels gives probabilities (STM).
    """
    clipped = logits.clamp(-limit, limit)
    background = -F.softplus(clipped).sum(1, keepdim=True)
    odds = torch.log(-torch.expm1(background.clamp(max=-1e-6)))
    return torch.cat([background - odds, clipped], 1)
