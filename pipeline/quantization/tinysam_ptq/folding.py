"""Folding of batch norms into the preceding convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(model: nn.Module, run: Callable[[], object]) -> None:
    """Fold, in place, every batch norm whose input is the output of a convolution.

    run: a forward pass through all of them; pairs are found from the computed tensors, independent
    of the module tree. The model must be in evaluation mode.
    """
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    last: tuple[nn.Module, Tensor] | None = None

    def leave(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal last
        last = module, output

    def enter(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if last is None or inputs[0] is not last[1]:
            return
        if isinstance(last[0], nn.Conv2d) and isinstance(module, nn.BatchNorm2d):
            pairs.append((last[0], module))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(leave))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(enter))
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        _fold(convolution, norm)
    folded = {norm for _, norm in pairs}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in folded:
                setattr(parent, name, nn.Identity())


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a norm with running statistics into its convolution."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
