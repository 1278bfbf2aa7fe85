"""Quantized layers, and a context in which networks compute with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind, LayerCalls
from maskstream.pipeline.quantization.tinysam_ptq.quantizers import Quantizer


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A layer's quantizers and its error when quantized alone.

    first: of the activation. second: of the weight, or of the other activation. error: relative
    output error, weighted by importance. shift: float [channels] added to the bias, or None; see
    `bias`.
    """

    kind: Kind
    first: Quantizer
    second: Quantizer
    error: float
    shift: Tensor | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.first}; {self.second}; error {self.error:.2%}"


class QuantizedCalls(LayerCalls):
    """Context in which networks compute the given layers with fake-quantized operands."""

    def __init__(self, layers: Mapping[str, QuantizedLayer], *roots: type[nn.Module]) -> None:
        super().__init__(*roots)
        self._layers = layers

    def on_call(self, call: Call) -> Tensor:
        """Compute with fake-quantized operands; matmuls per head if heads have their own scales."""
        layer = self._layers.get(call.name)
        if layer is None:
            return call.run(call.first, call.second)
        if call.kind is Kind.MATMUL and layer.first.axis is not None:
            heads = zip(call.first.unbind(1), call.second.unbind(1), strict=True)
            parts = [
                call.run(layer.first.part(i)(a), layer.second.part(i)(b))
                for i, (a, b) in enumerate(heads)
            ]
            return torch.stack(parts, dim=1)
        run: Callable[..., Tensor] = call.run
        if layer.shift is not None:
            bias = call.options.get("bias")
            run = partial(run, bias=layer.shift if bias is None else bias + layer.shift)
        return run(layer.first(call.first), layer.second(call.second))
