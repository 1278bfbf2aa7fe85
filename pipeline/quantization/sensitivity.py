"""Layer sensitivity: the error of a graph with only one layer quantized.

A layer is an operation that reads a FakeQuantize, be it of an activation or of weights. The graph
must be quantized without bias correction, which would compensate for errors of other layers, and
its weights must not be compressed yet, so that their FakeQuantize can be bypassed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.openvino_runtime import ov

Score = Callable[[ov.Model], float]
"""Error of a graph against FP32; 0 is perfect."""


def quantized_layers(graph: ov.Model) -> list[str]:
    """Names of the operations that read a quantized activation or quantized weights."""
    return [
        node.get_friendly_name()
        for node in graph.get_ordered_ops()
        if any(_is_quantizer(value.get_node()) for value in node.input_values())
    ]


def _is_quantizer(node: Any) -> bool:
    return bool(node.get_type_name() == "FakeQuantize")


def readable_name(graph: ov.Model, layer: str) -> str:
    """The module and call that an operation comes from; fused ones are named by a consumer."""
    found = next(node for node in graph.get_ops() if node.get_friendly_name() == layer)
    if not layer.startswith("__module.") and found.get_output_size():
        readers = (t.get_node().get_friendly_name() for t in found.output(0).get_target_inputs())
        layer = min(readers, default=layer)
    return layer.removeprefix("__module.")


def without(graph: ov.Model, layers: Collection[str], exact: ov.Model | None = None) -> ov.Model:
    """Copy a quantized graph with these layers in FP32.

    exact: the FP32 graph, from which these layers take their biases; needed if biases were
    corrected, because the corrected error no longer occurs.
    """
    copy = graph.clone()
    if exact is not None:
        _restore_biases(copy, layers, exact)
    for node in copy.get_ordered_ops():
        if node.get_friendly_name() in layers:
            for port in node.inputs():
                quantizer = port.get_source_output().get_node()
                if _is_quantizer(quantizer):
                    port.replace_source_output(quantizer.input_value(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _restore_biases(graph: ov.Model, layers: Collection[str], exact: ov.Model) -> None:
    """Copy the biases of these layers from another graph."""
    counterparts = {node.get_friendly_name(): node for node in exact.get_ops()}
    for node in graph.get_ordered_ops():
        if node.get_friendly_name() in layers:
            for reader in node.output(0).get_target_inputs():
                addition = reader.get_node()
                _take_constants(addition, counterparts.get(addition.get_friendly_name()))


def _take_constants(addition: Any, exact: Any) -> None:
    """Copy an addition's constants from its counterpart, if there is one."""
    if addition.get_type_name() != "Add" or exact is None:
        return
    for port, value in zip(addition.inputs(), exact.input_values(), strict=True):
        constant = value.get_node()
        if constant.get_type_name() == "Constant":
            restored = ov.opset13.constant(constant.data.copy(), constant.get_element_type())
            port.replace_source_output(restored.output(0))


def uncorrected(graph: ov.Model, exact: ov.Model) -> ov.Model:
    """Copy a quantized graph with the biases of the FP32 graph."""
    copy = graph.clone()
    layers = set(quantized_layers(copy))
    _restore_biases(copy, layers, exact)
    return copy


def sensitivities(
    graph: ov.Model, score: Score, report: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """Error of every layer quantized alone, worst first; reports progress and time left."""
    layers = quantized_layers(graph)
    errors: dict[str, float] = {}
    begun = time.monotonic()
    for done, layer in enumerate(layers, 1):
        errors[layer] = score(without(graph, set(layers) - {layer}))
        if done % 20 == 0 or done == len(layers):
            left = (time.monotonic() - begun) / done * (len(layers) - done)
            time_left = f", {about(left)} left" if left else ""
            report(f"quantized alone: {done} of {len(layers)} layers{time_left}")
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def about(seconds: float) -> str:
    """Format a duration in words."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def error_against(exact: ov.Model, samples: Sequence[Mapping[str, Any]]) -> Score:
    """Create a score from the FP32 graph's outputs on samples (inputs by name).

    The error is the RMS of the difference relative to that of the output, averaged over outputs and
    samples.
    """
    reference = Runner(exact)
    truths = [_outputs(reference, exact, sample) for sample in samples]

    def score(graph: ov.Model) -> float:
        runner = Runner(graph)
        errors = [
            np.sqrt(np.square(answer - truth).mean() / max(float(np.square(truth).mean()), 1e-12))
            for sample, expected in zip(samples, truths, strict=True)
            for truth, answer in zip(expected, _outputs(runner, graph, sample), strict=True)
        ]
        return float(np.mean(errors))

    return score


def _outputs(runner: Runner, graph: ov.Model, sample: Mapping[str, Any]) -> list[np.ndarray]:
    out = runner(sample)
    return [out[port.any_name] for port in graph.outputs]
