"""Export the objectness head to an OpenVINO graph (torch; not imported at inference)."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.jit._trace import TracerWarning

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.objectness.card import ObjectnessCard
from maskstream.pipeline.objectness.model import INPUTS
from maskstream.pipeline.objectness.network import INPUT_CHANNELS, STRIDES, ObjectnessNetwork
from maskstream.pipeline.segmenter.openvino_runtime import ov


@torch.no_grad()
def export_objectness(network: ObjectnessNetwork) -> ov.Model:
    """Convert the network to a graph in FP32; inputs and outputs are named."""
    network.eval()
    sizes = [2 if name == "features_s8" else 1 for name in INPUTS]
    example = tuple(
        torch.zeros(1, c, 6 * k, 8 * k) for c, k in zip(INPUT_CHANNELS, sizes, strict=True)
    )
    shapes = [([1, c, -1, -1], ov.Type.f32) for c in INPUT_CHANNELS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        graph = ov.convert_model(network, example_input=example, input=shapes)
    names = [*INPUTS, *(f"boxes_s{stride}" for stride in STRIDES)]
    for port, name in zip([*graph.inputs, *graph.outputs], names, strict=True):
        port.get_tensor().set_names({name})
    return graph


def write_objectness(weights: dict[str, Tensor], folder: Path, card: ObjectnessCard) -> None:
    """Write a head: its graph with FP16 weights, and `objectness.yaml`.

    weights: state of `ObjectnessNetwork`. Raises `ModelError` if they do not fit.
    """
    network = ObjectnessNetwork()
    try:
        network.load_state_dict(
            {k: v.float() if v.dtype.is_floating_point else v for k, v in weights.items()}
        )
    except RuntimeError as error:
        raise ModelError(f"these are not weights of the head: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(export_objectness(network), folder / "objectness.xml", compress_to_fp16=True)
    (folder / "objectness.yaml").write_text(yaml.safe_dump(card.model_dump(), sort_keys=False))
