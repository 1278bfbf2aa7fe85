"""`bench macs`: parameters and multiply-accumulates (MACs) of every network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskstream.pipeline.lab.bench.original import torch_decode
from maskstream.pipeline.segmenter.sam import BUILDERS, build


@dataclass(frozen=True, slots=True)
class Macs:
    """Cost of a network: MACs of convolutions, linear layers and attention.

    long_side: pixels of its input. parameters: of the whole network. encoder_square,
    encoder_rectangle: MACs for one image padded to a square, as in the papers, and for a 16:9
    image, as encoded here. decoder: MACs for one click on the square.
    """

    model: str
    long_side: int
    parameters: int
    encoder_square: int
    encoder_rectangle: int
    decoder: int

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def count_macs() -> tuple[Macs, ...]:
    """Count all networks, on meta tensors (shapes without values)."""
    return tuple(_count(name) for name in BUILDERS)


@torch.inference_mode()
def _count(name: str) -> Macs:
    with torch.device("meta"):
        model = build(name).eval()
        side, multiple = model.architecture.long_side, model.architecture.multiple
        square = torch.zeros(1, 3, side, side)
        rows = -(-side * 9 // 16 // multiple) * multiple
        rectangle = square if model.architecture.stretched else torch.zeros(1, 3, rows, side)
        features = model.encode(square)
        decode = torch_decode(model, features, 1)
        return Macs(
            name,
            side,
            sum(parameter.numel() for parameter in model.parameters()),
            _macs(lambda: model.encode(square)),
            _macs(lambda: model.encode(rectangle)),
            _macs(decode),
        )


def _macs(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2
