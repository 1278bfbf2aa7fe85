"""Post-training INT8 quantization with NNCF; layers are kept in FP32 until masks are accurate.

Two of NNCF's defaults cost accuracy here. Its overflow fix halves the range of the weights for CPUs
without VNNI; on `lite` that nearly doubles the encoder's error. And its fast bias correction works
from the statistics of single layers; the full one, layer after layer through the quantized graph,
takes twice as long once and brings the error down to little more than that of the weights alone
(docs/measurements/quantization.md has the figures).

NNCF's own `quantize_with_accuracy_control` is not used: a layer that it reverts behind a
SmoothQuant gets its unsmoothed weights and keeps the smoothing, which breaks every transformer; and
it reverts one layer a validation, ranks again when one does not help, and does not report which.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from maskstream.pipeline.quantization.calibration import PreparedImage, random_prompts, spread
from maskstream.pipeline.quantization.export import attention_in_fp32, kept_in_fp32
from maskstream.pipeline.quantization.gate import (
    Graphs,
    Tensors,
    answer_on,
    chosen_masks,
    cosine,
    grid_answers,
    mask_ious,
)
from maskstream.pipeline.quantization.runner import Inputs, Runner
from maskstream.pipeline.quantization.sensitivity import (
    about,
    error_against,
    quantized_layers,
    readable_name,
    sensitivities,
    uncorrected,
    without,
)
from maskstream.pipeline.quantization.tinysam_ptq import Goal
from maskstream.pipeline.quantization.tinysam_ptq.fp32_layers import (
    MAX_COMPARISONS,
    smallest_sufficient,
)
from maskstream.pipeline.segmenter.openvino_runtime import ov, without_telemetry

with without_telemetry():
    import nncf
    from nncf.openvino.quantization.backend_parameters import BackendParameters
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParameters
    from openvino._offline_transformations import compress_quantize_weights_transformation

PROMPTS_PER_IMAGE = 4
JUDGED_ON = 8  # images, evenly spaced, on which masks are compared with FP32's
RANKING_IMAGES = 4  # samples of each graph; every layer costs a compilation and as many runs
_RANKED_MULTIPLE = 64  # pixels; input sides that every network accepts
_ATTENTION = frozenset({"ScaledDotProductAttention", "Softmax"})
PARTS = ("encoder", "decoder")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NncfResult:
    """Quantized graphs, layers kept in FP32 with the reason, and errors of layers by name.

    errors: of every layer quantized alone; empty if not computed.
    """

    encoder: ov.Model
    decoder: ov.Model
    kept_in_fp32: dict[str, str]
    errors: dict[str, float]


def quantize_graphs(
    fp32: Graphs,
    images: Sequence[PreparedImage],
    *,
    goal: Goal | None = None,
    sensitivity: bool = False,
    report: Say = lambda _: None,
) -> NncfResult:
    """Quantize an encoder and a decoder; layers are kept in FP32 until masks reach `goal`.

    The encoder comes first, followed by the FP32 decoder, then the decoder after that result.
    goal: measured on up to `JUDGED_ON` of the images, which are not used to fit scales and biases;
    None: all layers are quantized. sensitivity: measure every layer quantized alone even if the
    goal is reached at once. The work is bounded: each graph's layers are ranked once, and at most
    1 + `MAX_COMPARISONS` graphs are compared with FP32's for each.
    """
    fitted, tried = _split(images)
    parts = _parts(fp32, fitted)
    int8 = [part.quantized() for part in parts]
    kept = {"decoder": "everything but the upsampling (docs/measurements/quantization.md)"}
    if parts[0].ignored:
        kept["encoder"] = (
            "linear attention between its projections (docs/measurements/quantization.md)"
        )
    errors: list[dict[str, float]] = [{}, {}]
    trials = None if goal is None else Trials(fp32, spread(tried, JUDGED_ON), goal)
    start_s = time.monotonic()
    missed = trials is not None and not trials.passes(
        (int8[0], int8[1]), "all layers in INT8", report
    )
    if sensitivity or missed:
        if missed:
            report(
                "too far from FP32: keeping layers in FP32. They are ranked, then at most "
                f"{2 * (1 + MAX_COMPARISONS)} graphs are compared, "
                f"{about(time.monotonic() - start_s)} each"
            )
        errors = [part.errors(graph, report) for part, graph in zip(parts, int8, strict=True)]
    if trials is not None and missed:
        done = fp32
        for index, part in enumerate(parts):
            floats = _layers_kept_in_fp32(
                int8, fp32, done, index, list(errors[index]), trials, report
            )
            done = _replaced(done, index, without(int8[index], floats, fp32[index]))
            for layer in floats:
                harm = errors[index][layer]
                kept[part.readable(layer)] = f"its quantization alone causes an error of {harm:.1%}"
        int8 = list(done)
    for graph in int8:
        compress_quantize_weights_transformation(graph)
    named = {
        part.readable(layer): error
        for part, found in zip(parts, errors, strict=True)
        for layer, error in found.items()
    }
    return NncfResult(int8[0], int8[1], kept, named)


def _layers_kept_in_fp32(
    int8: Sequence[ov.Model],
    fp32: Graphs,
    done: Graphs,
    index: int,
    order: Sequence[str],
    trials: Trials,
    report: Say,
) -> Sequence[str]:
    """The smallest prefix of `order` that must be kept in FP32 to reach the goal.

    Tries at most 1 + `MAX_COMPARISONS` graphs at `index` of `done`, so the result may be slightly
    larger than necessary.
    """

    def enough(count: int) -> bool:
        graph = without(int8[index], order[:count], fp32[index]) if count else int8[index]
        whole = _replaced(done, index, graph)
        return trials.passes(
            whole, f"{PARTS[index]}: {count} of {len(order)} layers kept in FP32", report
        )

    return [] if enough(0) else order[: smallest_sufficient(len(order), enough)]


def _replaced(graphs: Graphs, index: int, graph: ov.Model) -> Graphs:
    return (graph, graphs[1]) if index == 0 else (graphs[0], graph)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the two graphs with its calibration samples, and operations not to quantize."""

    name: str
    fp32: ov.Model
    samples: list[dict[str, Any]]
    ignored: list[str]

    def quantized(self) -> ov.Model:
        return quantize_graph(self.fp32, self.samples, ignored=self.ignored, compress=False)

    def errors(self, int8: ov.Model, report: Say) -> dict[str, float]:
        """Error of every layer quantized alone, worst first. int8: the result of `quantized`."""
        samples = [_smaller(s) for s in spread(_of_one_size(self.samples), RANKING_IMAGES)]
        report(f"{self.name}: ranking {len(quantized_layers(int8))} layers")
        return sensitivities(
            uncorrected(int8, self.fp32), error_against(self.fp32, samples), report
        )

    def readable(self, layer: str) -> str:
        return f"{self.name}: {readable_name(self.fp32, layer)}"


def _of_one_size(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples of the most frequent size; every further size would compile each graph again."""
    name = "image" if "image" in samples[0] else "grid"
    sizes = [sample[name].shape for sample in samples]
    commonest = max(sizes, key=sizes.count)
    return [sample for sample, size in zip(samples, sizes, strict=True) if size == commonest]


def _smaller(sample: dict[str, Any]) -> dict[str, Any]:
    """Halve the sides of an encoder sample, for a quarter of the work; others are unchanged."""
    if "image" not in sample:
        return sample
    height, width = (
        max(side // (2 * _RANKED_MULTIPLE), 1) * _RANKED_MULTIPLE
        for side in sample["image"].shape[1:3]
    )
    scaled = cv2.resize(sample["image"][0], (width, height), interpolation=cv2.INTER_AREA)
    return {"image": scaled[None]}


def _split(
    images: Sequence[PreparedImage],
) -> tuple[Sequence[PreparedImage], Sequence[PreparedImage]]:
    """Split into two thirds for calibration and a third to compare masks; all for both if few."""
    tried = images[2::3]
    fitted = [image for index, image in enumerate(images) if index % 3 != 2]
    return (fitted, tried) if tried else (images, images)


def _parts(fp32: Graphs, images: Sequence[PreparedImage]) -> list[_Part]:
    encoder, decoder = fp32
    runner = Runner(encoder)
    taken = {port.any_name for port in decoder.inputs}
    rng = np.random.default_rng(0)
    samples: list[dict[str, Any]] = []
    for image in images:
        found = runner({"image": image.image})
        for prompts in random_prompts(image.geometry, PROMPTS_PER_IMAGE, rng):
            inputs = found | prompts
            samples.append({name: value for name, value in inputs.items() if name in taken})
    return [
        _Part(PARTS[0], encoder, [{"image": p.image} for p in images], attention_in_fp32(encoder)),
        _Part(PARTS[1], decoder, samples, kept_in_fp32(decoder)),
    ]


class Trials:
    """Compares quantized graphs with the FP32 answers to the gate's prompts on some images.

    The outputs of the last encoder and the compiled decoder are cached, because only one of the two
    graphs changes at a time.
    """

    def __init__(self, fp32: Graphs, images: Sequence[PreparedImage], goal: Goal) -> None:
        self._goal = goal
        self._images: list[Inputs] = [{"image": image.image} for image in images]
        self._encoder, self._features = fp32[0], self._encoded(fp32[0])
        self._decoder, self._runner = fp32[1], Runner(fp32[1])
        self._fp32_answers: list[list[tuple[Tensors, bool, Tensors]]] = []
        for exact, image in zip(self._features, images, strict=True):
            answer = partial(answer_on, self._runner, exact)
            self._fp32_answers.append(list(grid_answers(answer, image)))
        self._embeddings = [exact["embedding"] for exact in self._features]

    def _encoded(self, encoder: ov.Model) -> list[Tensors]:
        runner = Runner(encoder)
        return [runner(image) for image in self._images]

    def passes(self, graphs: Graphs, what: str, report: Say) -> bool:
        """Whether graphs reach the goal; reports the figures."""
        iou, near = self.closeness(graphs)
        report(f"{what}: mask IoU {iou:.4f}, embedding cosine {near:.4f} on calibration images")
        return iou >= self._goal.mask_iou_min and near >= self._goal.cosine_min

    def closeness(self, graphs: Graphs) -> tuple[float, float]:
        """Mask IoU and embedding cosine against FP32, as in the gate."""
        encoder, decoder = graphs
        if encoder is not self._encoder:
            self._encoder, self._features = encoder, self._encoded(encoder)
        if decoder is not self._decoder:
            self._decoder, self._runner = decoder, Runner(decoder)
        ious: list[float] = []
        for features, answers in zip(self._features, self._fp32_answers, strict=True):
            for prompts, ambiguous, truth in answers:
                answer = answer_on(self._runner, features, prompts)
                ious += mask_ious(*chosen_masks(truth, answer, ambiguous))
        found = (features["embedding"] for features in self._features)
        cosines = [cosine(a, b) for a, b in zip(self._embeddings, found, strict=True)]
        return float(np.mean(ious or [1.0])), float(np.mean(cosines))


def quantize_graph(
    graph: ov.Model,
    samples: Sequence[Any],
    *,
    ignored: Sequence[str] = (),
    correct_bias: bool = True,
    compress: bool = True,
    ranges: RangeEstimatorParameters | None = None,
) -> ov.Model:
    """Quantize a graph to INT8 on calibration samples (each one input or a dict of inputs).

    A graph with attention gets NNCF's transformer scheme (SmoothQuant, matmuls of attention).
    ignored: names of operations kept in FP32. correct_bias: let biases compensate the mean error of
    preceding layers. compress: store weights in 8 bits instead of FP32 before a FakeQuantize.
    ranges: how ranges of activations are estimated; None: NNCF's default, the mean of the samples'.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    attends = any(op.get_type_name() in _ATTENTION for op in graph.get_ops())
    scope = nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None
    with redirect_stdout(sys.stderr):  # NNCF prints progress bars to stdout
        return nncf.quantize(
            graph,
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            fast_bias_correction=False,
            ignored_scope=scope,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE,
                disable_bias_correction=not correct_bias,
                activations_range_estimator_params=ranges or RangeEstimatorParameters(),
                backend_params={BackendParameters.COMPRESS_WEIGHTS: compress},
            ),
        )
