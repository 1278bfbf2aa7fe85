"""Interception of a network's layers: convolutions, linear layers, products of activations.

A product such as q @ k^T is not a module, so layers are intercepted as calls of torch functions,
named by the calling module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle


class Kind(StrEnum):
    """Kinds of layers to quantize."""

    CONVOLUTION = "convolution"
    DECONVOLUTION = "deconvolution"
    LINEAR = "linear"
    MATMUL = "matmul"


_KINDS: dict[Callable[..., Tensor], Kind] = {
    F.conv2d: Kind.CONVOLUTION,
    F.conv_transpose2d: Kind.DECONVOLUTION,
    F.linear: Kind.LINEAR,
    torch.matmul: Kind.MATMUL,
    Tensor.matmul: Kind.MATMUL,
    Tensor.__matmul__: Kind.MATMUL,
}
_OPTIONS: dict[Kind, tuple[str, ...]] = {
    Kind.CONVOLUTION: ("bias", "stride", "padding", "dilation", "groups"),
    Kind.DECONVOLUTION: ("bias", "stride", "padding", "output_padding", "groups", "dilation"),
    Kind.LINEAR: ("bias",),
    Kind.MATMUL: (),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One computation of a layer.

    own: whether a module computes it with its own weight; otherwise the weight may combine those of
    several layers. first: the activation. second: the weight, or for a matmul the other
    activation. options: further arguments by name. run: the function of the two operands.
    """

    name: str
    kind: Kind
    own: bool
    first: Tensor
    second: Tensor
    options: Mapping[str, Any]
    run: Callable[[Tensor, Tensor], Tensor]


class LayerCalls(TorchFunctionMode, ABC):
    """Context manager that routes every layer call of a network through `on_call`.

    roots: the types of the networks. A layer is named by the path of its module. Calls with weights
    of other modules, and matmuls, are named by path, kind and a number, as in
    `layers.0.attn.matmul1`.
    """

    def __init__(self, *roots: type[nn.Module]) -> None:
        super().__init__()
        self._roots = roots
        self._paths: dict[nn.Module, str] = {}  # of the running network
        self._running: list[tuple[nn.Module, Counter[Kind]]] = []  # with their numbers of calls
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def on_call(self, call: Call) -> Tensor:
        """Compute the layer's output."""

    def __enter__(self) -> Self:
        self._hooks = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, always_call=True),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _entered(self, module: nn.Module, *_: object) -> None:
        if isinstance(module, self._roots):
            self._paths = {part: path for path, part in module.named_modules()}
        self._running.append((module, Counter()))

    def _left(self, *_: object) -> None:
        self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Tensor],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        kind = _KINDS.get(func)
        if kind is None or not self._running or self._running[-1][0] not in self._paths:
            return func(*args, **options)
        first, second, *rest = args
        options |= dict(zip(_OPTIONS[kind], rest, strict=False))
        module, made = self._running[-1]
        own = isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        name = self._paths[module]
        if not own:
            name = f"{name}.{kind}{made[kind]}".removeprefix(".")
            made[kind] += 1
        return self.on_call(Call(name, kind, own, first, second, options, partial(func, **options)))
