"""INT8 rounding in training, so that quantization afterwards costs little accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_LAYERS = (F.conv2d, F.linear)
_LEAST_SCALE = 1e-8


class Int8Rounding(TorchFunctionMode):
    """Context in which convolutions and linear layers round their weights and inputs to INT8.

    Weights are symmetric per output channel, inputs have one range, as NNCF quantizes them.
    Gradients pass through the rounding (straight-through estimator).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `TorchFunctionMode`."""
        if func in _LAYERS:
            x, weight, *rest = args
            args = (rounded_input(x), rounded_weight(weight), *rest)
        return func(*args, **(kwargs or {}))


def rounded_weight(weight: Tensor) -> Tensor:
    """Weights [O, ...] as multiples of a scale per output channel, at most 127 of it."""
    scale = weight.detach().flatten(1).abs().amax(1).div(127).clamp(min=_LEAST_SCALE)
    return _on_grid(weight, scale.view(-1, *[1] * (weight.ndim - 1)))


def rounded_input(x: Tensor) -> Tensor:
    """A tensor on 256 levels from its least value, or zero, to its greatest; zero is one."""
    low, high = torch.aminmax(x.detach())
    scale = (high.clamp(min=0) - low.clamp(max=0)).div(255).clamp(min=_LEAST_SCALE)
    return _on_grid(x, scale)


def _on_grid(x: Tensor, scale: Tensor) -> Tensor:
    with torch.no_grad():
        change = torch.round(x / scale) * scale - x
    return x + change
