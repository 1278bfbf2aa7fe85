"""Torch networks to OpenVINO graphs of any input size.

The encoder graph takes RGB bytes [1, H, W, 3] and normalises inside; the decoder graph takes the
features, normalised prompts and the grid of cell centres, so that one graph serves every frame size
and any number of prompts.
"""

from __future__ import annotations

from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn

from pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from pipeline.segmenter.prompt_encoder import cell_centres
from pipeline.segmenter.sam import Architecture, Sam

ENCODER_OUTPUTS = ("embedding", "skip_s4", "skip_s8")
DECODER_INPUTS = ("xy", "labels", "mask", "has_mask", "grid")
DECODER_OUTPUTS = ("masks", "iou")


class _EncoderGraph(nn.Module):
    """RGB bytes to features, normalisation included."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model
        architecture = model.architecture
        self.register_buffer("mean", torch.tensor(architecture.mean)[:, None, None])
        self.register_buffer("scale", 1 / torch.tensor(architecture.std)[:, None, None])
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        features = self.model.encode((x - self.mean) * self.scale)
        return tuple(f for f in features if f is not None)


class _DecoderGraph(nn.Module):
    """Features and prompts to low-resolution logits and predicted IoU."""

    def __init__(self, model: Sam, has_skips: bool) -> None:
        super().__init__()
        self.model = model
        self.has_skips = has_skips

    def forward(self, embedding: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        skip_s4, skip_s8 = rest[:2] if self.has_skips else (None, None)
        prompt = rest[2:] if self.has_skips else rest
        features = ImageFeatures(embedding, skip_s4, skip_s8)
        out = self.model.decode(features, *prompt)
        return out.masks, out.iou


def _name(ports: list[Any], names: tuple[str, ...]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})


@torch.no_grad()
def export(model: Sam) -> tuple[ov.Model, ov.Model]:
    """Convert a model to its encoder and decoder graphs (FP32, any size)."""
    model.eval()
    side = 8 * model.architecture.multiple
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    encoder_graph = _EncoderGraph(model)
    features = encoder_graph(image)
    encoder = ov.convert_model(
        encoder_graph, example_input=(image,), input=[([1, -1, -1, 3], ov.Type.u8)]
    )
    encoder_outputs = ENCODER_OUTPUTS[: len(features)]
    _name(encoder.inputs, ("image",))
    _name(encoder.outputs, encoder_outputs)

    has_skips = len(features) == len(ENCODER_OUTPUTS)
    h, w = features[0].shape[-2:]
    grid = cell_centres(4 * h, 4 * w)
    prompt = (
        torch.zeros(2, 3, 2),
        torch.ones(2, 3),
        torch.zeros(2, 1, 4 * h, 4 * w),
        torch.zeros(2),
        grid,
    )
    shapes = [[1, f.shape[1], -1, -1] for f in features]
    shapes += [[-1, -1, 2], [-1, -1], [-1, 1, -1, -1], [-1], [2, -1, -1]]
    decoder = ov.convert_model(
        _DecoderGraph(model, has_skips),
        example_input=(*features, *prompt),
        input=[(shape, ov.Type.f32) for shape in shapes],
    )
    _name(decoder.inputs, (*encoder_outputs, *DECODER_INPUTS))
    _name(decoder.outputs, DECODER_OUTPUTS)
    return encoder, decoder


def architecture_of(model: Sam) -> dict[str, Any]:
    """What `model.yaml` says of the network."""
    a: Architecture = model.architecture
    return {
        "name": a.name,
        "long_side": a.long_side,
        "multiple": a.multiple,
        "pad_rgb": [round(v) for v in a.mean],
    }
