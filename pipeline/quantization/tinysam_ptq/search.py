"""Search for the scales of a matrix product's two operands (TinySAM, arXiv 2312.13789).

Candidates are 100 scales, 0.01 to 1.2 times the one that just covers the operand, and that one
itself, which keeps uint8 image values exact. The two operands alternate for three rounds. The error
of the quantized product is weighted by the squared gradients of the task loss, the diagonal of its
Hessian, as in PTQ4ViT (arXiv 2111.12293).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskstream.pipeline.quantization.tinysam_ptq.quantizers import CodeRange

CANDIDATES = 100
RATIOS = (0.01, 1.2)
ROUNDS = 3
_IMPORTANCE_FLOOR = 1e-2
_TINY_SCALE = 1e-8  # of channels whose weights are (almost) zero


@dataclass(frozen=True, slots=True)
class Product:
    """A product a @ b with the importance of its elements.

    a: float [S, G, N, K]; b: float [S, G, K, M]; importance: float [S, G, N, M], not negative.
    S: independent samples; G: groups of a convolution or heads; 1 in a or b is broadcast.
    """

    a: Tensor
    b: Tensor
    importance: Tensor


@dataclass(frozen=True, slots=True)
class Operand:
    """Codes of an operand, and the scales [1, G or 1, 1, M or 1] that just cover it."""

    codes: CodeRange
    covering: Tensor


def importance(gradient: Tensor) -> Tensor:
    """Squared gradients relative to their mean, with a small floor.

    The floor makes the plain squared error decide where gradients are zero, as for a channel that
    is dead in all samples.
    """
    squared = gradient.square()
    return squared / squared.mean().clamp_min(torch.finfo(squared.dtype).tiny) + _IMPORTANCE_FLOOR


def search(products: Sequence[Product], first: Operand, second: Operand) -> tuple[Tensor, Tensor]:
    """Find the scales of both operands, each of the shape of its `covering`.

    Minimizes the sum of the products' weighted squared errors.
    """
    targets = [p.a @ p.b for p in products]
    scale_a, scale_b = (o.covering.clamp_min(_TINY_SCALE) for o in (first, second))
    for _ in range(ROUNDS):
        before = scale_a, scale_b
        fixed = [second.codes.quantize(p.b, scale_b) for p in products]

        def error_of_a(scale: Tensor, fixed: list[Tensor] = fixed) -> Tensor:
            made = [
                first.codes.quantize(p.a, scale) @ b for p, b in zip(products, fixed, strict=True)
            ]
            return _error(products, targets, made, scale)

        scale_a = _best(first, error_of_a)
        fixed = [first.codes.quantize(p.a, scale_a) for p in products]

        def error_of_b(scale: Tensor, fixed: list[Tensor] = fixed) -> Tensor:
            made = [
                a @ second.codes.quantize(p.b, scale) for p, a in zip(products, fixed, strict=True)
            ]
            return _error(products, targets, made, scale)

        scale_b = _best(second, error_of_b)
        if torch.equal(before[0], scale_a) and torch.equal(before[1], scale_b):
            break  # converged
    return scale_a, scale_b


def relative_error(
    products: Sequence[Product], first: Operand, second: Operand, scales: tuple[Tensor, Tensor]
) -> float:
    """Weighted error of the quantized products, relative to the weighted norm of the exact ones."""
    wrong = total = 0.0
    for p in products:
        exact = p.a @ p.b
        made = first.codes.quantize(p.a, scales[0]) @ second.codes.quantize(p.b, scales[1])
        wrong += float(((made - exact).square() * p.importance).sum())
        total += float((exact.square() * p.importance).sum())
    return float((wrong / total) ** 0.5) if total else 0.0


def _best(operand: Operand, error: Callable[[Tensor], Tensor]) -> Tensor:
    """The best candidate for each scale of the operand, independently."""
    best = operand.covering.clamp_min(_TINY_SCALE)
    smallest_sufficient = torch.full_like(best, torch.inf)
    for ratio in (1.0, *torch.linspace(*RATIOS, CANDIDATES).tolist()):
        scale = (ratio * operand.covering).clamp_min(_TINY_SCALE)
        found = error(scale)
        best = torch.where(found < smallest_sufficient, scale, best)
        smallest_sufficient = torch.minimum(found, smallest_sufficient)
    return best


def _error(
    products: Sequence[Product], targets: list[Tensor], made: list[Tensor], scale: Tensor
) -> Tensor:
    """Weighted squared error summed over the elements of each scale; the shape of `scale`."""
    error = torch.zeros_like(scale)
    for product, target, value in zip(products, targets, made, strict=True):
        weighted = value.sub_(target).square_().mul_(product.importance)
        error += weighted.sum_to_size(scale.shape)
    return error
