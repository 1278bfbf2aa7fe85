"""Selection of layers to keep in FP32 when full INT8 changes the masks too much.

Every layer is quantized alone and ranked by the change of mask probabilities it causes, relative
to its cost. Squared changes of layers add up (measured: encoder 0.51 and decoder 0.13 give 0.64
together), so a prefix of the ranking is close to optimal; its length is found by bisection, with
the gate's own measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskstream.pipeline.quantization.calibration import PreparedImage
from maskstream.pipeline.quantization.export import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    ENCODER_OUTPUTS,
    NOT_DECODED,
    SKIP_OUTPUTS,
)
from maskstream.pipeline.quantization.gate import (
    SMALLEST_MASK,
    Tensors,
    chosen_masks,
    cosine,
    grid_answers,
    mask_ious,
)
from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind, LayerCalls
from maskstream.pipeline.quantization.tinysam_ptq.layers import QuantizedCalls, QuantizedLayer

RANKING_IMAGES = 4  # images; clicks only, the more sensitive prompts
MAX_COMPARISONS = 5  # of a bisection; each decodes hundreds of prompts
_MACS_A_VALUE = 8  # reading or writing a value takes about as long as this many MACs

Layers = Mapping[str, QuantizedLayer]
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True, slots=True)
class Goal:
    """Minimum agreement with FP32 on calibration images; stricter than the gate."""

    mask_iou_min: float
    cosine_min: float


@dataclass(frozen=True, slots=True)
class Closeness:
    """Agreement of quantized networks with FP32: IoU and cosine as in the gate.

    change: squared change of mask probabilities, relative to mask size.
    """

    mask_iou: float
    cosine: float
    change: float

    def reaches(self, goal: Goal) -> bool:
        """Whether both figures reach the goal."""
        return self.mask_iou >= goal.mask_iou_min and self.cosine >= goal.cosine_min

    def __str__(self) -> str:
        return f"mask IoU {self.mask_iou:.4f}, embedding cosine {self.cosine:.4f}"


def layers_kept_in_fp32(
    networks: Networks,
    layers: Layers,
    images: Sequence[PreparedImage],
    goal: Goal,
    report: Callable[[str], None],
) -> dict[str, str]:
    """Select layers to keep in FP32 to reach the goal on these images, with the reason for each.

    Quantizes every layer alone on `RANKING_IMAGES` images, and compares at most
    1 + `MAX_COMPARISONS` combinations on all images; one if full INT8 reaches the goal.
    """
    trials = [Trial(networks, image) for image in images]
    found = closeness(trials, layers)
    report(f"all layers in INT8, calibration images: {found}")
    if found.reaches(goal):
        return {}
    costs = _costs(networks, images[0])
    step = -(-len(images) // RANKING_IMAGES)
    few = [Trial(networks, image, clicks_only=True) for image in images[::step]]
    harms: dict[str, Closeness] = {}
    for done, (name, layer) in enumerate(layers.items(), 1):
        harms[name] = closeness(few, {name: layer})
        if done % 20 == 0:
            report(f"quantized alone: {done} of {len(layers)} layers")
    order = sorted(layers, key=lambda name: -harms[name].change / costs[name])

    def enough(count: int) -> bool:
        floats = set(order[:count])
        rest = {name: layer for name, layer in layers.items() if name not in floats}
        found = closeness(trials, rest)
        report(f"{count} of {len(layers)} layers kept in FP32: {found}")
        return found.reaches(goal)

    return {
        name: f"its quantization alone costs {1 - harms[name].mask_iou:.1%} of mask IoU"
        for name in order[: smallest_sufficient(len(order), enough)]
    }


def smallest_sufficient(
    upper: int, enough: Callable[[int], bool], max_calls: int = MAX_COMPARISONS
) -> int:
    """Find a sufficient count in 1..upper by bisection; `upper` is assumed to be sufficient.

    Evaluates at most `max_calls` counts, the first a quarter of `upper`, because a few of the worst
    layers are usually enough. The result may be slightly larger than the minimum.
    """
    low, high = 0, upper
    middle = max(1, upper // 4)
    for _ in range(max_calls):
        if high - low <= 1:
            break
        low, high = (low, middle) if enough(middle) else (middle, high)
        middle = (low + high) // 2
    return high


class Trial:
    """The FP32 networks' answers to the gate's prompts on one image."""

    def __init__(
        self, networks: Networks, image: PreparedImage, *, clicks_only: bool = False
    ) -> None:
        self._networks = networks
        self._image = torch.from_numpy(image.image)
        exact = self._encode({})
        self._embedding = exact["embedding"]
        self._fp32_answers: list[tuple[dict[str, Any], bool, Tensors]] = []
        answers = grid_answers(lambda prompts: self._decode({}, exact | prompts), image)
        self._fp32_answers.extend(islice(answers, 1 if clicks_only else None))

    def run(self, layers: Layers) -> tuple[list[float], float, float]:
        """Compute mask IoUs, cosine and change with these layers quantized."""
        features = self._encode(layers)
        ious: list[float] = []
        changes = []
        for prompts, ambiguous, truth in self._fp32_answers:
            answer = self._decode(layers, features | prompts)
            a, b = chosen_masks(truth, answer, ambiguous)
            ious += mask_ious(a, b)
            changes.append(_change(_sigmoid(a), _sigmoid(b)))
        return ious, cosine(self._embedding, features["embedding"]), float(np.mean(changes))

    @torch.no_grad()
    def _encode(self, layers: Layers) -> Tensors:
        encoder = self._networks[0]
        with QuantizedCalls(layers, type(encoder)):
            outputs = encoder(self._image)
        names = (*ENCODER_OUTPUTS, *SKIP_OUTPUTS)[: len(outputs)]
        return {name: x.numpy() for name, x in zip(names, outputs, strict=True)}

    @torch.no_grad()
    def _decode(self, layers: Layers, inputs: Mapping[str, Any]) -> Tensors:
        decoder = self._networks[1]
        features = [x for name, x in inputs.items() if name not in (*NOT_DECODED, *DECODER_INPUTS)]
        prompt = [inputs[name] for name in DECODER_INPUTS]
        with QuantizedCalls(layers, type(decoder)):
            masks, iou, *_ = decoder(*(torch.from_numpy(x) for x in (*features, *prompt)))
        return dict(zip(DECODER_OUTPUTS, (masks.numpy(), iou.numpy()), strict=True))


def _change(truth: np.ndarray, answer: np.ndarray) -> float:
    """Squared differences of probabilities [N, h, w] relative to mask size, mean over masks.

    Relative as in IoU; otherwise the largest masks of a single image would dominate.
    """
    smallest = SMALLEST_MASK * truth[0].size
    sizes = truth.sum((1, 2)).clip(smallest)
    return float((np.square(truth - answer).sum((1, 2)) / sizes).mean())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))


def closeness(trials: Sequence[Trial], layers: Layers) -> Closeness:
    """Agreement with FP32 over all trials, with these layers quantized."""
    runs = [trial.run(layers) for trial in trials]
    ious = [value for found, *_ in runs for value in found] or [1.0]
    return Closeness(
        float(np.mean(ious)),
        float(np.mean([r[1] for r in runs])),
        float(np.mean([r[2] for r in runs])),
    )


class _Costs(LayerCalls):
    """Sums the cost of layers: MACs, plus values read and written in the same unit."""

    def __init__(self, root: type[nn.Module]) -> None:
        super().__init__(root)
        self.costs: dict[str, float] = {}

    def on_call(self, call: Call) -> Tensor:
        out = call.run(call.first, call.second)
        each = call.first.shape[-1] if call.kind is Kind.MATMUL else call.second[0].numel()
        moved = call.first.numel() + out.numel()
        made = call.first.numel() if call.kind is Kind.DECONVOLUTION else out.numel()
        self.costs[call.name] = made * each + _MACS_A_VALUE * moved
        return out


@torch.no_grad()
def _costs(networks: Networks, image: PreparedImage) -> dict[str, float]:
    """Cost of every layer as a share of its own network, since both must stay fast."""
    shares: dict[str, float] = {}
    trial = Trial(networks, image, clicks_only=True)
    for network in networks:
        with _Costs(type(network)) as counted:
            trial.run({})
        total = sum(counted.costs.values())
        shares |= {name: cost / total for name, cost in counted.costs.items()}
    return shares
