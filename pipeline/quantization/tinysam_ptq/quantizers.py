"""Uniform 8-bit quantizers and their code ranges.

TinySAM (arXiv 2312.13789) quantizes symmetrically, clip(round(x / s), -128, 127), and gives the
outputs of softmax and GELU two scales ("twin" ranges). Integer kernels support one scale and one
zero point per activation tensor, so here a range mostly on one side of zero gets unsigned codes
with a zero point instead. After softmax, in 0..1, that is zero point 0 and a step of 1/255. After
GELU, in -0.17..max, a share of 0.17 / (max + 0.17) of the codes covers the negative values and the
rest the positive ones, almost twice as many as with a symmetric range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 8


@dataclass(frozen=True, slots=True)
class CodeRange:
    """The integer codes low..high of a quantizer; `zero_point` represents 0."""

    zero_point: int
    low: int
    high: int

    def quantize(self, x: Tensor, scale: Tensor) -> Tensor:
        """Round x to representable values; scale is broadcast to x."""
        codes = (x / scale).round_().clamp_(self.low - self.zero_point, self.high - self.zero_point)
        return codes.mul_(scale)


SYMMETRIC = CodeRange(0, -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1)


def codes_for(low: float, high: float, *, zero_point: bool) -> tuple[CodeRange, float]:
    """Choose codes for values in low..high, and the smallest scale that covers them.

    zero_point: whether codes may have a zero point other than 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high > low and (zero_point or low == 0):
        scale = (high - low) / (2**BITS - 1)
        return CodeRange(round(-low / scale), 0, 2**BITS - 1), scale
    return SYMMETRIC, max(-low, high) / 2 ** (BITS - 1)


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A quantizer; scale: float32 [1], or one for each channel along `axis` of its argument."""

    codes: CodeRange
    scale: Tensor
    axis: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Fake-quantize with torch operators that OpenVINO converts to FakeQuantize."""
        codes = self.codes
        zero_point = torch.full_like(self.scale, codes.zero_point, dtype=torch.int32)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale, zero_point, codes.low, codes.high
            )
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, zero_point, self.axis, codes.low, codes.high
        )

    def part(self, index: int) -> Quantizer:
        """The quantizer of one channel."""
        return Quantizer(self.codes, self.scale[index : index + 1])

    def __str__(self) -> str:
        codes, scale = self.codes, self.scale
        kind = "i8" if codes.low < 0 else f"u8 zero point {codes.zero_point}"
        if self.axis is None:
            return f"{kind}, scale {float(scale):.3g}"
        return f"{kind}, {len(scale)} scales {float(scale.min()):.3g}..{float(scale.max()):.3g}"
