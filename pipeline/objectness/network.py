"""The network of the objectness head (torch; not imported at inference).

An anchor-free detector without classes, as FCOS (arXiv 1904.01355), on two maps of a frozen
encoder. Its score is trained to be the IoU of its box (quality focal loss, arXiv 2006.04388).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16)
INPUT_CHANNELS = (40, 112, 128)
"""Of the encoder's maps `features_s8`, `features_s16` and `embedding`."""
_WIDTHS = (48, 64)
_PRIOR = 0.02  # share of cells that are objects, for the first bias


class ConvBlock(nn.Sequential):
    """Convolution, batch norm and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 3, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class Level(nn.Module):
    """Scores and boxes of one stride.

    Output [B, 5, h, w]: logit of the score, then the distances from the cell's center to the left,
    top, right and bottom side, as logarithms, in strides.
    """

    def __init__(self, width: int, convolutions: int) -> None:
        super().__init__()
        blocks = [ConvBlock(width, width, dilation=1 + i % 2) for i in range(convolutions)]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Conv2d(width, 5, 3, padding=1)
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            first = cast(Tensor, self.out.bias)
            first.fill_(1.0)
            first[0] = -torch.log(torch.tensor((1 - _PRIOR) / _PRIOR))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width, h, w] to [B, 5, h, w]."""
        out: Tensor = self.out(self.blocks(x))
        return out


class ObjectnessNetwork(nn.Module):
    """Predicts boxes at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        fine, coarse = _WIDTHS
        s8, s16, embedding = INPUT_CHANNELS
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in INPUT_CHANNELS])
        self.from_s16 = ConvBlock(s16 + embedding, coarse, 1)
        self.from_s8 = ConvBlock(s8, fine, 1)
        self.down = nn.Conv2d(coarse, fine, 1)
        self.coarse = Level(coarse, 3)
        self.fine = Level(fine, 2)

    def forward(self, s8: Tensor, s16: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C, 2h, 2w], [B, C, h, w] and [B, C, h, w] to [B, 5, 2h, 2w] and [B, 5, h, w]."""
        s8, s16, embedding = (n(x) for n, x in zip(self.norms, (s8, s16, embedding), strict=True))
        coarse = self.from_s16(torch.cat([s16, embedding], 1))
        finer = F.interpolate(self.down(coarse), scale_factor=2.0, mode="nearest")
        fine = self.from_s8(s8) + finer
        return self.fine(fine), self.coarse(coarse)
