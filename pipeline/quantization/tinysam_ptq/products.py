"""Layers as matrix products: sampled output positions of a call, with their operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind

Pick = Callable[[Tensor], Tensor]
"""Selects the sampled elements [S, G, N, M] from a tensor of a layer's output shape."""

_MAX_ROWS, _MIN_ROWS = 64, 16
_MAX_COLUMNS = 256
_ROW_FLOATS = 2**19


@dataclass(frozen=True, slots=True)
class Sample:
    """Operands of sampled outputs, first [S, G, N, K] and second [S, G, K, M], and the selector."""

    first: Tensor
    second: Tensor
    pick: Pick


def unsupported(call: Call) -> str | None:
    """The reason why a layer cannot be quantized, or None."""
    if call.kind is Kind.MATMUL and min(call.first.dim(), call.second.dim()) < 3:
        return "few rows times a matrix: coordinates, or weights applied to the tokens"
    if call.kind is Kind.DECONVOLUTION:
        kernel = tuple(call.second.shape[2:])
        plain = (call.options["groups"], *call.options["padding"]) == (1, 0, 0)
        if not plain or kernel != tuple(call.options["stride"]):
            return "a transposed convolution whose outputs overlap, are cropped or are grouped"
    return None


def scale_shape(call: Call, *, headwise: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the scales of both operands, in the layout of `Sample`.

    One scale per tensor; one per channel for weights of (transposed) convolutions and for weights
    combined from several layers; and, with `headwise`, one per head for both operands of a matmul.
    """
    one = (1, 1, 1, 1)
    if call.kind is Kind.CONVOLUTION:
        groups = call.options["groups"]
        return one, (1, groups, 1, call.second.shape[0] // groups)
    if call.kind is Kind.DECONVOLUTION:
        return one, (1, 1, 1, call.second.shape[1])
    if call.kind is Kind.LINEAR and not call.own:
        return one, (1, 1, 1, call.second.shape[0])
    if call.kind is Kind.MATMUL and headwise and call.first.dim() == 4:
        heads = (1, call.first.shape[1], 1, 1)
        return heads, heads
    return one, one


def channel_axis(call: Call) -> int:
    """Axis of the operands along which `scale_shape` has several scales."""
    return 0 if call.kind in (Kind.CONVOLUTION, Kind.LINEAR) else 1


def weight_matrix(call: Call) -> Tensor:
    """The weight as the second operand of a `Product`, [S, G, K, M]."""
    weight = call.second.detach()
    if call.kind is Kind.CONVOLUTION:
        groups = call.options["groups"]
        return weight.reshape(1, groups, weight.shape[0] // groups, -1).transpose(2, 3)
    if call.kind is Kind.DECONVOLUTION:
        cin, cout = weight.shape[:2]
        return weight.permute(2, 3, 0, 1).reshape(-1, 1, cin, cout)
    return weight.t()[None, None]


def sample(call: Call, generator: torch.Generator) -> Sample:
    """Sample 16 to 64 output positions of a call, fewer where a position has many inputs."""
    if call.kind is Kind.MATMUL:
        return _sample_matmul(call, generator)
    second = weight_matrix(call)
    floats = second.shape[1] * second.shape[2]
    rows = max(_MIN_ROWS, min(_MAX_ROWS, _ROW_FLOATS // floats))
    if call.kind is Kind.CONVOLUTION:
        return _sample_convolution(call, second, rows, generator)
    if call.kind is Kind.DECONVOLUTION:
        return _sample_deconvolution(call, second, rows, generator)
    return _sample_linear(call, second, rows, generator)


def _positions(shape: tuple[int, ...], count: int, generator: torch.Generator) -> list[Tensor]:
    """Indices along each axis of random positions; positions may repeat."""
    return [torch.randint(size, (count,), generator=generator) for size in shape]


def _sample_linear(call: Call, second: Tensor, rows: int, generator: torch.Generator) -> Sample:
    x = call.first.detach()
    at = tuple(_positions(tuple(x.shape[:-1]), rows, generator))
    return Sample(x[at][None, None], second, lambda out: out[at][None, None])


def _sample_convolution(
    call: Call, second: Tensor, rows: int, generator: torch.Generator
) -> Sample:
    (sy, sx), (py, px), (dy, dx), groups = (
        call.options[name] for name in ("stride", "padding", "dilation", "groups")
    )
    kh, kw = call.second.shape[2:]
    x = F.pad(call.first.detach(), (px, px, py, py))
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    b, oy, ox = _positions((x.shape[0], height, width), rows, generator)
    y = (oy * sy)[:, None, None] + dy * torch.arange(kh)[:, None]
    column = (ox * sx)[:, None, None] + dx * torch.arange(kw)
    patches = x[b[:, None, None], :, y, column]  # [rows, kh, kw, Cin]
    first = patches.permute(3, 0, 1, 2).reshape(groups, -1, rows, kh * kw)
    first = first.permute(0, 2, 1, 3).reshape(1, groups, rows, -1)
    return Sample(
        first, second, lambda out: out[b, :, oy, ox].reshape(rows, groups, -1).transpose(0, 1)[None]
    )


def _sample_deconvolution(
    call: Call, second: Tensor, rows: int, generator: torch.Generator
) -> Sample:
    """Sample non-overlapping outputs: each input pixel gives kh x kw outputs, along axis S."""
    x = call.first.detach()
    kh, kw = call.second.shape[2:]
    b, y, column = _positions((x.shape[0], *x.shape[2:]), rows, generator)

    def pick(out: Tensor) -> Tensor:
        blocks = [out[b, :, y * kh + i, column * kw + j] for i in range(kh) for j in range(kw)]
        return torch.stack(blocks)[:, None]

    return Sample(x[b, :, y, column][None, None], second, pick)


def _sample_matmul(call: Call, generator: torch.Generator) -> Sample:
    """Sample one batch element with all heads, and some rows and columns."""
    lead = [max(sizes) for sizes in zip(call.first.shape, call.second.shape, strict=True)][:-2]
    first = call.first.detach().expand(*lead, -1, -1)
    second = call.second.detach().expand(*lead, -1, -1)
    item = int(torch.randint(lead[0], (), generator=generator))
    rows = torch.randperm(first.shape[-2], generator=generator)[:_MAX_ROWS]
    columns = torch.randperm(second.shape[-1], generator=generator)[:_MAX_COLUMNS]

    def grouped(x: Tensor) -> Tensor:
        """[1, G, rows, columns] of the item; G is 1 where there are no heads."""
        return x[item].reshape(1, -1, *x.shape[-2:])

    return Sample(
        grouped(first)[:, :, rows],
        grouped(second)[..., columns],
        lambda out: grouped(out)[:, :, rows][..., columns],
    )
