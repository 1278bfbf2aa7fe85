"""Export of torch networks to OpenVINO graphs of any input size.

The encoder graph takes RGB uint8 [1, H, W, 3] and normalizes inside. Besides the embedding it
outputs the decoder's image-only projections, which are thus computed once a keyframe. The decoder
graph takes these, normalized prompts and the grid of cell centers, so that one graph serves every
frame size and any number of prompts. Inner tensors that inference replaces are named: see
`maskstream.pipeline.segmenter.openvino_decoder`.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from maskstream.pipeline.quantization.decoder_graph import FastMaskDecoder, ImageSides, skip_tokens
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import LiteEncoder
from maskstream.pipeline.segmenter.encoders.tiny_vit import TinyViTEncoder
from maskstream.pipeline.segmenter.openvino_decoder import (
    DENSE,
    DENSE_SIDES,
    MASK_INPUTS,
    POSITIONS,
)
from maskstream.pipeline.segmenter.openvino_padding import fold_paddings
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.prompt_encoder import cell_centers
from maskstream.pipeline.segmenter.sam import Architecture, Sam

ENCODER_OUTPUTS = ("embedding", "features_s8", "features_s16", "image_tokens", "image_sides")
SKIP_OUTPUTS = ("skip_s4", "skip_s8")
NOT_DECODED = ENCODER_OUTPUTS[:3]
DECODER_INPUTS = ("xy", "labels", "mask", "has_mask", "grid")
DECODER_OUTPUTS = ("masks", "iou")
INNER_TENSORS = (POSITIONS, DENSE, DENSE_SIDES)  # the last two only for prompts without a mask


class _EncoderGraph(nn.Module):
    """RGB uint8 to features, including normalization."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.encoder = cast(LiteEncoder | TinyViTEncoder, model.image_encoder)
        self.sides = ImageSides(model.prompt_encoder, model.mask_decoder)
        architecture = model.architecture
        self.register_buffer("mean", torch.tensor(architecture.mean)[:, None, None])
        self.register_buffer("scale", 1 / torch.tensor(architecture.std)[:, None, None])
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        f = self.encoder.all_features((x - self.mean) * self.scale)
        outputs = (f.embedding, f.s8, f.s16, *self.sides(f.embedding))
        if f.skip_s4 is None or f.skip_s8 is None:
            return outputs
        return (*outputs, skip_tokens(f.skip_s4, 2), skip_tokens(f.skip_s8, 1))


class _DecoderGraph(nn.Module):
    """Features and prompts to low-resolution logits, predicted IoU and the named inner tensors."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.decoder = FastMaskDecoder(model.prompt_encoder, model.mask_decoder)

    def forward(self, image: Tensor, sides: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *skips, xy, labels, mask, has_mask, grid = rest
        positions = self.decoder.positions(grid)
        sparse = self.prompt_encoder.tokens(xy, labels)
        size_hw = grid.shape[-2:]
        if not self.prompt_encoder.mask_prompts:
            return (*self.decoder(image, sides, positions, sparse, size_hw, *skips), positions)
        dense = self.decoder.dense(xy, labels, mask, has_mask, grid)
        dense_sides = self.decoder.dense_sides(dense)
        sides = sides + dense_sides
        masks, iou = self.decoder(image + dense, sides, positions, sparse, size_hw, *skips)
        inner = (
            (positions,) if self.prompt_encoder.drawn_prompts else (positions, dense, dense_sides)
        )
        return (masks, iou, *inner)


def _name(ports: list[Any], names: tuple[str, ...]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})


def _convert(module: nn.Module, example: tuple[Tensor, ...], shapes: list[Any]) -> ov.Model:
    """Trace a module; torch's tracing warnings are suppressed, as they concern true constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        graph = ov.convert_model(module, example_input=example, input=shapes)
    return fold_paddings(graph)


@torch.no_grad()
def export(model: Sam) -> tuple[ov.Model, ov.Model]:
    """Convert a model to its encoder and decoder graphs (FP32, any size)."""
    encoder, features = _export_encoder(model)
    return encoder, _export_decoder(model, features)


@torch.no_grad()
def export_encoder(model: Sam) -> ov.Model:
    """Convert only the encoder."""
    return _export_encoder(model)[0]


def _export_encoder(model: Sam) -> tuple[ov.Model, dict[str, Tensor]]:
    """The graph, and its outputs for a black image."""
    model.eval()
    side = 8 * model.architecture.multiple
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    encoder_graph = _EncoderGraph(model)
    features = encoder_graph(image)
    encoder = _convert(encoder_graph, (image,), [([1, -1, -1, 3], ov.Type.u8)])
    names = (*ENCODER_OUTPUTS, *SKIP_OUTPUTS)[: len(features)]
    _name(encoder.inputs, ("image",))
    _name(encoder.outputs, names)
    return encoder, dict(zip(names, features, strict=True))


def _export_decoder(model: Sam, features: dict[str, Tensor]) -> ov.Model:
    taken = {name: f for name, f in features.items() if name not in NOT_DECODED}
    h, w = (4 * n for n in features["embedding"].shape[-2:])
    prompt = (
        torch.zeros(2, 3, 2),
        torch.ones(2, 3),
        torch.zeros(2, 1, h, w),
        torch.zeros(2),
        cell_centers(h, w),
    )
    shapes = [[1, -1, f.shape[-1]] for f in taken.values()]
    shapes += [[-1, -1, 2], [-1, -1], [-1, 1, -1, -1], [-1], [2, -1, -1]]
    decoder = _convert(
        _DecoderGraph(model),
        (*taken.values(), *prompt),
        [(shape, ov.Type.f32) for shape in shapes],
    )
    _name(decoder.inputs, (*taken, *DECODER_INPUTS))
    if not model.prompt_encoder.mask_prompts:
        for parameter in decoder.get_parameters():
            if parameter.output(0).get_names() & MASK_INPUTS:
                decoder.remove_parameter(parameter)
    _name(decoder.outputs[: len(DECODER_OUTPUTS)], DECODER_OUTPUTS)
    for result, name in zip(
        decoder.get_results()[len(DECODER_OUTPUTS) :], INNER_TENSORS, strict=False
    ):
        result.input_value(0).get_tensor().set_names({name})
        decoder.remove_result(result)
    return decoder


def kept_in_fp32(decoder: ov.Model) -> list[str]:
    """Names of a decoder's operations to keep in FP32: all but the upsampling.

    Attention weights over thousands of cells are far below an 8-bit step: with everything quantized
    the logits' cosine fell to 0.72 with the reference fill, against 0.998 this way.
    """
    names = [operation.get_friendly_name() for operation in decoder.get_ops()]
    return [name for name in names if ".upsample_s" not in name]


def attention_in_fp32(encoder: ov.Model) -> list[str]:
    """Names of an encoder's operations between the projections of linear attention.

    Its products and division cause a fifth of the INT8 encoder's error, but are only a thousandth
    of its computation (docs/measurements/quantization.md).
    """
    names = [operation.get_friendly_name() for operation in encoder.get_ops()]
    inner = (".context_module.main/", ".context_module.main.aggreg.")
    return [name for name in names if any(part in name for part in inner)]


def architecture_of(model: Sam) -> dict[str, Any]:
    """The network's entry in `model.yaml`."""
    a: Architecture = model.architecture
    return {
        "name": a.name,
        "long_side": a.long_side,
        "multiple": a.multiple,
        "pad_rgb": [round(v) for v in a.mean],
        "cell": a.cell,
        "stretched": a.stretched,
        "mask_prompts": model.prompt_encoder.mask_prompts,
        "points_max": a.points_max,
        "score": a.score,
        "everything": dict(a.everything),
        "encoder_work": a.encoder_work,
    }
