"""Export the memory network to OpenVINO graphs of any size (torch; not imported at inference).

Four graphs, `keys`, `values`, `read` and `head`, so that what depends only on the image runs once
per keyframe and what depends on objects runs in one batch.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.card import MemoryCard
from maskstream.pipeline.memory.network import FEATURE, KEY, LIKENESS, VALUE, MemoryNetwork
from maskstream.pipeline.segmenter.openvino_runtime import ov

KEYS_INPUTS = ("s4", "s8", "skip_s8", "s16", "embedding")
KEYS_OUTPUTS = ("key", "query", "likeness", "features")
VALUES_INPUTS = ("features", "mask", "others")
READ_INPUTS = ("query", "keys", "values", "bias")
HEAD_INPUTS = ("shared", "read", "propagated", "beside", "known", "s4")
HEAD_OUTPUTS = ("logits", "presence")


class _KeysGraph(nn.Module):
    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self.keys = network.keys

    def forward(
        self, s4: Tensor, s8: Tensor, skip_s8: Tensor, s16: Tensor, embedding: Tensor
    ) -> tuple[Tensor, ...]:
        frame = self.keys(s4, s8, skip_s8, s16, embedding)
        rows = (x.flatten(2).transpose(1, 2) for x in (frame.key, frame.query, frame.likeness))
        return (*rows, frame.features)


class _ValuesGraph(nn.Module):
    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self.values = network.values

    def forward(self, features: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        features = features.expand(mask.shape[0], -1, -1, -1)
        values: Tensor = self.values(features, mask, others)
        return values.flatten(2).transpose(1, 2)


class _ReadGraph(nn.Module):
    def forward(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        similarity = query @ keys.transpose(1, 2) + bias[:, None]
        return similarity.softmax(-1) @ values


class _HeadGraph(nn.Module):
    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self.head = network.head

    def forward(
        self,
        shared: Tensor,
        read: Tensor,
        propagated: Tensor,
        beside: Tensor,
        known: Tensor,
        s4: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count = read.shape[0]
        both = torch.cat([shared.expand(count, -1, -1, -1), read], 1)
        logits, presence = self.head(both, propagated, beside, known, s4.expand(count, -1, -1, -1))
        return logits, presence


def _traced(
    module: nn.Module, example: tuple[Tensor, ...], shapes: list[tuple[list[int], ov.Type]]
) -> ov.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        return ov.convert_model(module, example_input=example, input=shapes)


def _convert(
    module: nn.Module,
    example: tuple[Tensor, ...],
    names: tuple[str, ...],
    outputs: tuple[str, ...],
) -> ov.Model:
    shapes = [([-1, *x.shape[1:2], *([-1] * (x.ndim - 2))], ov.Type.f32) for x in example]
    graph = _traced(module, example, shapes)
    for ports, given in ((graph.inputs, names), (graph.outputs, outputs)):
        for port, name in zip(ports, given, strict=True):
            port.get_tensor().set_names({name})
    return graph


@torch.no_grad()
def export_memory(network: MemoryNetwork) -> dict[str, ov.Model]:
    """Convert the network to graphs in FP32, by name."""
    network.eval()
    h, w = 8, 16
    maps = [(16, 4), (40, 2), (32, 2), (112, 1), (128, 1)]
    keys = tuple(torch.zeros(1, c, h * k, w * k) for c, k in maps)
    fine, coarse = (4 * h, 4 * w), (2 * h, 2 * w)
    features = torch.zeros(1, FEATURE, *coarse)
    masks = torch.zeros(2, 1, *fine)
    shared = torch.zeros(1, FEATURE + 2 * LIKENESS, *coarse)
    head = (
        shared,
        torch.zeros(2, 2 * VALUE, *coarse),
        masks,
        masks,
        torch.zeros(2, 2),
        keys[0],
    )
    return {
        "keys": _convert(_KeysGraph(network), keys, KEYS_INPUTS, KEYS_OUTPUTS),
        "values": _convert(
            _ValuesGraph(network), (features, masks, masks), VALUES_INPUTS, ("values",)
        ),
        "read": read_graph(),
        "head": _convert(_HeadGraph(network), head, HEAD_INPUTS, HEAD_OUTPUTS),
    }


def read_graph() -> ov.Model:
    """Graph of the attention over remembered cells, without weights."""
    module = _ReadGraph()
    example = (
        torch.zeros(1, 4, KEY),
        torch.zeros(1, 3, KEY),
        torch.zeros(1, 3, VALUE),
        torch.zeros(1, 3),
    )
    shapes = [[1, -1, KEY], [1, -1, KEY], [1, -1, -1], [1, -1]]
    graph = _traced(module, example, [(s, ov.Type.f32) for s in shapes])
    for port, name in zip(graph.inputs, READ_INPUTS, strict=True):
        port.get_tensor().set_names({name})
    graph.outputs[0].get_tensor().set_names({"read"})
    return graph


def write_memory(weights: dict[str, Tensor], folder: Path, card: MemoryCard) -> None:
    """Write a memory: graphs with FP16 weights, and `memory.yaml`.

    weights: state of `MemoryNetwork`. Raises `ModelError` if they do not fit.
    """
    network = MemoryNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"these are not weights of the memory: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in export_memory(network).items():
        ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=True)
    (folder / "memory.yaml").write_text(yaml.safe_dump(card.model_dump(), sort_keys=False))
