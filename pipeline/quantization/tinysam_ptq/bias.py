"""Bias correction: subtracts the mean output error of a quantized layer from its bias.

Rounded weights have a constant error, so much of a layer's error is the same on every image. It is
measured on FP32 inputs (Nagel et al., arXiv 1906.04721, section 4.2, with measured instead of
assumed inputs), so that the correction of a layer does not depend on the other layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskstream.pipeline.quantization.calibration import PreparedImage
from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind
from maskstream.pipeline.quantization.tinysam_ptq.layers import QuantizedCalls, QuantizedLayer

_CHANNEL_AXIS = {Kind.CONVOLUTION: 1, Kind.LINEAR: -1}  # of the outputs of layers with a bias


@torch.no_grad()
def correct_biases(
    encoder: nn.Module, layers: Mapping[str, QuantizedLayer], images: Sequence[PreparedImage]
) -> dict[str, QuantizedLayer]:
    """Add to the encoder's layers the shift that cancels their mean error."""
    errors = _MeanErrors(layers, type(encoder))
    with errors:
        for image in images:
            encoder(torch.from_numpy(image.image))
    shifts = errors.means()
    return {name: replace(layer, shift=shifts.get(name)) for name, layer in layers.items()}


class _MeanErrors(QuantizedCalls):
    """Runs in FP32 and accumulates each layer's quantization error by output channel."""

    def __init__(self, layers: Mapping[str, QuantizedLayer], root: type[nn.Module]) -> None:
        super().__init__(layers, root)
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def on_call(self, call: Call) -> Tensor:
        exact = call.run(call.first, call.second)
        if call.name in self._layers and call.kind in _CHANNEL_AXIS:
            missing = (exact - super().on_call(call)).movedim(_CHANNEL_AXIS[call.kind], 0)
            total, count = self._sums.get(call.name, (torch.zeros(len(missing)), 0))
            missing = missing.flatten(1)
            self._sums[call.name] = total + missing.sum(1), count + missing.shape[1]
        return exact

    def means(self) -> dict[str, Tensor]:
        """Mean output error of each layer, negated, float [channels]."""
        return {name: total / count for name, (total, count) in self._sums.items()}
