"""Calibration: ranges, sampled operands and task-loss gradients of every layer, for the search.

TinySAM (arXiv 2312.13789) weights errors by the squared gradients of KL(mask) + KL(iou). Taken
from the FP32 network's prediction to itself, that divergence is at its minimum and its gradient
zero; its Hessian is the Fisher information, E[g g^T] over gradients g of the log-likelihood of
outcomes drawn from the prediction. So outcomes are drawn: every mask pixel and every predicted IoU
is read as a Bernoulli probability p, y is drawn with it, and (p - y) is propagated back. The
squared gradient at a layer's output is then an unbiased sample of the Hessian's diagonal there
(PTQ4ViT, arXiv 2111.12293, approximates it the same way, from the gradients of a loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from maskstream.pipeline.quantization.calibration import PreparedImage, random_prompts
from maskstream.pipeline.quantization.export import (
    DECODER_INPUTS,
    ENCODER_OUTPUTS,
    NOT_DECODED,
    SKIP_OUTPUTS,
)
from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind, LayerCalls
from maskstream.pipeline.quantization.tinysam_ptq.products import (
    Sample,
    channel_axis,
    sample,
    scale_shape,
    unsupported,
    weight_matrix,
)
from maskstream.pipeline.quantization.tinysam_ptq.search import Product, importance

_PROMPTS_OF_A_KIND = 4
_MAX_ROWS = 512
_MAX_MATMULS = 8
_IOU_MARGIN = 0.05  # predictions closer to 0 or 1 than this are clamped


@dataclass(slots=True)
class Record:
    """Calibration record of a layer.

    first_range, second_range: minimum and maximum of each operand over all calls.
    scale_shapes, axis: see `products.scale_shape` and `channel_axis`. samples: with the gradient at
    the sampled outputs. unsupported: why the layer cannot be quantized, or None.
    """

    kind: Kind
    scale_shapes: tuple[tuple[int, ...], tuple[int, ...]]
    axis: int
    unsupported: str | None
    weight: Tensor | None
    first_range: tuple[float, float] = (math.inf, -math.inf)
    second_range: tuple[float, float] = (math.inf, -math.inf)
    samples: list[tuple[Sample, Tensor]] = field(default_factory=list)

    def products(self, generator: torch.Generator) -> list[Product]:
        """Reduce the samples to `_MAX_ROWS` rows, or `_MAX_MATMULS` products of activations."""
        order = torch.randperm(len(self.samples), generator=generator).tolist()
        if self.weight is None:
            chosen = [self.samples[i] for i in order[:_MAX_MATMULS]]
            return [Product(s.first, s.second, importance(gradient)) for s, gradient in chosen]
        first = torch.cat([s.first for s, _ in self.samples], dim=2)
        gradient = torch.cat([g for _, g in self.samples], dim=2)
        rows = torch.randperm(first.shape[2], generator=generator)[:_MAX_ROWS]
        return [Product(first[:, :, rows], self.weight, importance(gradient[:, :, rows]))]


def record_layers(
    graphs: tuple[nn.Module, nn.Module],
    images: Sequence[PreparedImage],
    *,
    seed: int,
    headwise: bool,
    progress: Callable[[int], None],
) -> dict[str, Record]:
    """Run encoder and decoder in FP32, forward and backward, on images with random prompts.

    graphs: as `export` converts them; their parameters need no gradients. progress: called with the
    number of images done.
    """
    recorder = _Recorder(graphs, headwise, torch.Generator().manual_seed(seed))
    with recorder:
        for done, prepared in enumerate(images, 1):
            _run(graphs, prepared, np.random.default_rng((seed, done)), recorder.generator)
            progress(done)
    return recorder.records


class _Recorder(LayerCalls):
    """Records every layer; samples only calls that receive gradients."""

    def __init__(
        self, graphs: tuple[nn.Module, nn.Module], headwise: bool, generator: torch.Generator
    ) -> None:
        super().__init__(*(type(graph) for graph in graphs))
        self.records: dict[str, Record] = {}
        self.generator = generator
        self._headwise = headwise

    def on_call(self, call: Call) -> Tensor:
        out = call.run(call.first, call.second)
        record = self.records.get(call.name)
        if record is None:
            record = self.records[call.name] = self._new_record(call)
        record.first_range = _widened(record.first_range, call.first)
        if call.kind is Kind.MATMUL:
            record.second_range = _widened(record.second_range, call.second)
        if out.requires_grad and record.unsupported is None:
            taken = sample(call, self.generator)
            out.register_hook(partial(_keep, record, taken))  # type: ignore[no-untyped-call]
        return out

    def _new_record(self, call: Call) -> Record:
        return Record(
            call.kind,
            scale_shape(call, headwise=self._headwise),
            channel_axis(call),
            reason := unsupported(call),
            None if reason or call.kind is Kind.MATMUL else weight_matrix(call),
        )


def _keep(record: Record, taken: Sample, gradient: Tensor) -> None:
    record.samples.append((taken, taken.pick(gradient)))


def _widened(known: tuple[float, float], x: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(x.detach())
    return min(known[0], float(low)), max(known[1], float(high))


def _run(
    graphs: tuple[nn.Module, nn.Module],
    prepared: PreparedImage,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> None:
    """Compute gradients on one image, one kind of prompt at a time to limit memory."""
    encoder, decoder = graphs
    image = torch.from_numpy(prepared.image).to(torch.float32)
    outputs = encoder(image.requires_grad_())
    names = (*ENCODER_OUTPUTS, *SKIP_OUTPUTS)[: len(outputs)]
    encoded = [x for name, x in zip(names, outputs, strict=True) if name not in NOT_DECODED]
    features = [x.detach().requires_grad_() for x in encoded]
    for prompt in _prompts(decoder, features, prepared, rng):
        masks, iou, *_ = decoder(*features, *prompt)
        _propagate_back(masks, iou, generator)
    torch.autograd.backward(encoded, [x.grad for x in features])


def _prompts(
    decoder: nn.Module,
    features: Sequence[Tensor],
    prepared: PreparedImage,
    rng: np.random.Generator,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield random prompts; every other one has the network's first answer as mask prompt."""
    for given in random_prompts(prepared.geometry, _PROMPTS_OF_A_KIND, rng):
        xy, labels, mask, has_mask, grid = (torch.from_numpy(given[n]) for n in DECODER_INPUTS)
        with torch.no_grad():
            masks, *_ = decoder(*features, xy, labels, mask, has_mask, grid)
        has_mask[1::2] = 1
        yield xy.requires_grad_(), labels, masks[:, :1].requires_grad_(), has_mask, grid


def _propagate_back(masks: Tensor, iou: Tensor, generator: torch.Generator) -> None:
    """Propagate back the log-likelihood of drawn outcomes, averaged per kind of output."""
    with torch.no_grad():
        p = masks.sigmoid()
        mask_gradient = p - torch.bernoulli(p, generator=generator)
        q = iou.clamp(_IOU_MARGIN, 1 - _IOU_MARGIN)
        iou_gradient = (q - torch.bernoulli(q, generator=generator)) / (q * (1 - q))
        gradients = [g / math.sqrt(g[0].numel()) for g in (mask_gradient, iou_gradient)]
    torch.autograd.backward([masks, iou], gradients)
