"""TinySAM's post-training quantization (arXiv 2312.13789, section 3.3), executed as integers.

Batch norms are folded; then convolutions, transposed convolutions, linear layers and matrix
products of activations are quantized to 8 bits with scales from `search`. They are written
into the graphs as FakeQuantize, which OpenVINO executes as integer kernels.

Attention: the paper uses a scale per head. OpenVINO fuses softmax and both integer products into
one kernel when each operand has one scale; with a scale per head the heads are computed separately.
One core, TinyViT's attention without its projections, ms at 1024 x 1024 (windows x heads x tokens):
361 x 4 x 49: float 25.7, one scale 21.1, split by head 21.5; 25 x 5 x 196: 12.6, 8.8, 9.8;
100 x 10 x 49: 39.3, 34.9, 38.6. One scale is the default; `headwise` gives the paper's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskstream.pipeline.quantization.calibration import PreparedImage, spread
from maskstream.pipeline.quantization.export import _DecoderGraph, _EncoderGraph, export
from maskstream.pipeline.quantization.tinysam_ptq.bias import correct_biases
from maskstream.pipeline.quantization.tinysam_ptq.calibrate import Record, record_layers
from maskstream.pipeline.quantization.tinysam_ptq.calls import Kind
from maskstream.pipeline.quantization.tinysam_ptq.folding import fold_batch_norms
from maskstream.pipeline.quantization.tinysam_ptq.fp32_layers import Goal, layers_kept_in_fp32
from maskstream.pipeline.quantization.tinysam_ptq.layers import QuantizedCalls, QuantizedLayer
from maskstream.pipeline.quantization.tinysam_ptq.quantizers import SYMMETRIC, Quantizer, codes_for
from maskstream.pipeline.quantization.tinysam_ptq.search import (
    Operand,
    Product,
    relative_error,
    search,
)
from maskstream.pipeline.segmenter.encoders.efficient_vit import LinearAttention
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import Sam

_COMPARED = 16  # images on which masks are compared with FP32's
_LINEAR = "part of linear attention (docs/measurements/quantization.md)"
_ZERO_POINTS = (
    Kind.CONVOLUTION,
    Kind.LINEAR,
)  # others would run in FP32 with one

Progress = Callable[[str, int, int], None]
"""Progress callback: name of the step, count done, total count."""


@dataclass(frozen=True, slots=True)
class PtqResult:
    """The quantized graphs, the layers by name, and those kept in FP32 with the reason."""

    encoder: ov.Model
    decoder: ov.Model
    layers: dict[str, QuantizedLayer]
    kept_in_fp32: dict[str, str]


def quantize_model(
    model: Sam,
    images: Sequence[PreparedImage],
    *,
    max_images: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
    ignored: Collection[str] = (),
    error_limit: float = 0.03,
    headwise: bool = False,
    goal: Goal | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PtqResult:
    """Quantize a network's encoder and decoder; `model` is not modified.

    images: of any size the network accepts; `max_images` of them, evenly spaced, are used. ignored:
    names of layers kept in FP32. error_limit: layers with a larger error at the best scales are
    kept in FP32. headwise: use a scale per attention head. goal: keep further layers in FP32 until
    masks agree with FP32's this well, on up to 16 of the images. report: receives progress
    messages.
    """
    tell = progress or (lambda *_: None)
    folded = folded_copy(model)
    chosen = spread(images, max_images)
    networks = (_EncoderGraph(folded), _DecoderGraph(folded))
    records = record_layers(
        networks,
        chosen,
        seed=seed,
        headwise=headwise,
        progress=lambda done: tell("calibrating", done, len(chosen)),
    )
    layers: dict[str, QuantizedLayer] = {}
    kept = {name: _LINEAR for name in records if _in_linear_attention(networks[0], name)}
    kept |= dict.fromkeys(ignored, "asked for")
    generator = torch.Generator().manual_seed(seed)
    for done, name in enumerate(list(records), 1):
        record = records.pop(name)  # its samples are not needed again
        reason = kept.get(name) or _obstacle(record)
        if reason is None:
            layer = _search_layer(record, generator)
            if layer.error <= error_limit:
                layers[name] = layer
            else:
                reason = f"its error would be {layer.error:.1%}"
        if reason is not None:
            kept[name] = reason
        tell("searching scales", done, done + len(records))
    layers = correct_biases(networks[0], layers, chosen)
    if goal is not None:
        evaluated = spread(images, _COMPARED)
        for name, reason in layers_kept_in_fp32(networks, layers, evaluated, goal, report).items():
            kept[name] = reason
            del layers[name]
    with QuantizedCalls(layers, _EncoderGraph, _DecoderGraph):
        encoder, decoder = export(folded)
    return PtqResult(encoder, decoder, layers, kept)


def folded_copy(model: Sam) -> Sam:
    """Copy a model for inference, with batch norms folded and gradients disabled."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    side = 8 * model.architecture.multiple

    def run() -> None:
        features = folded.encode(torch.zeros(1, 3, side, side))
        mask = torch.zeros(1, 1, *(4 * s for s in features.embedding.shape[-2:]))
        folded.decode(features, torch.zeros(1, 2, 2), torch.ones(1, 2), mask, torch.zeros(1))

    fold_batch_norms(folded, run)
    return folded


def _in_linear_attention(encoder: nn.Module, layer: str) -> bool:
    """Whether a layer is part of linear attention, but not one of its projections."""
    for path, module in encoder.named_modules():
        if isinstance(module, LinearAttention) and layer.startswith(f"{path}."):
            return not layer.startswith((f"{path}.qkv.", f"{path}.proj."))
    return False


def _obstacle(record: Record) -> str | None:
    if record.unsupported:
        return record.unsupported
    if record.first_range == (0, 0) or record.second_range == (0, 0):
        return "calibration found only zeros"
    if not record.samples:
        return "depends on neither image nor prompt"
    return None


@torch.no_grad()
def _search_layer(record: Record, generator: torch.Generator) -> QuantizedLayer:
    products = record.products(generator)
    first_shape, second_shape = record.scale_shapes
    codes, covering = codes_for(*record.first_range, zero_point=record.kind in _ZERO_POINTS)
    first = Operand(codes, torch.full(first_shape, covering))
    if record.kind is Kind.MATMUL:
        codes, covering = codes_for(*record.second_range, zero_point=False)
        second = Operand(codes, torch.full(second_shape, covering))
    else:
        second = Operand(SYMMETRIC, _weight_covering(products[0], second_shape))
    scales = search(products, first, second)
    return QuantizedLayer(
        record.kind,
        _quantizer(first, scales[0], record.axis),
        _quantizer(second, scales[1], record.axis),
        relative_error(products, first, second, scales),
    )


def _quantizer(operand: Operand, scale: Tensor, axis: int) -> Quantizer:
    return Quantizer(operand.codes, scale.flatten(), axis if scale.numel() > 1 else None)


def _weight_covering(product: Product, shape: tuple[int, ...]) -> Tensor:
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    return product.b.abs().amax(axes, keepdim=True) / -SYMMETRIC.low
