"""Which activations INT8 harms: the error of a graph with one activation quantised at a time.

The unit is one activation tensor with a FakeQuantize on it, named by the operations that read it.
Weights stay INT8 throughout; their own error is reported apart. The graph must be quantised without
bias correction, which would compensate for what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov

Score = Callable[[Any], float]
"""Judges a compiled graph: error against FP32, 0 is perfect."""

_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One activation tensor: error when it alone is quantised, above that of the weights."""

    quantizer: str
    read_by: tuple[str, ...]
    error: float


def activation_quantizers(graph: ov.Model) -> dict[str, tuple[str, ...]]:
    """FakeQuantize operations on activations with the names of the operations that read them."""
    found = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and not _is_constant(node.input_value(0)):
            readers = (t.get_node().get_friendly_name() for t in node.output(0).get_target_inputs())
            found[node.get_friendly_name()] = tuple(sorted(readers))
    return found


def _is_constant(value: Any) -> bool:
    node = value.get_node()
    while node.get_input_size() and node.get_type_name() != "Parameter":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def without(graph: ov.Model, quantizers: Collection[str]) -> ov.Model:
    """A copy of a quantised graph in which these activations stay in float."""
    copy = graph.clone()
    for node in copy.get_ordered_ops():
        if node.get_friendly_name() in quantizers and node.get_type_name() == "FakeQuantize":
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(node.input_value(0))
    copy.validate_nodes_and_infer_types()
    return copy


def sensitivities(
    graph: ov.Model, score: Score, say: Callable[[str], None] = lambda _: None
) -> tuple[float, list[Sensitivity]]:
    """Error of the weights alone, and of each activation alone above it, worst first."""
    quantizers = activation_quantizers(graph)
    core = ov.Core()

    def error_without(names: Collection[str]) -> float:
        return score(core.compile_model(without(graph, names), "CPU", _OPTIONS))

    weights_only = error_without(quantizers)
    rows = []
    for done, (name, readers) in enumerate(quantizers.items(), 1):
        error = error_without(quantizers.keys() - {name})
        rows.append(Sensitivity(name, readers, error - weights_only))
        say(f"sensitivity {done}/{len(quantizers)}")
    return weights_only, sorted(rows, key=lambda row: -row.error)


def error_against(exact: ov.Model, samples: Sequence[Mapping[str, Any]]) -> Score:
    """Judge by the outputs of the FP32 graph on samples (inputs by name).

    The error is the root mean square of the difference by that of the output, averaged over the
    outputs and samples.
    """
    reference = ov.Core().compile_model(exact, "CPU", _OPTIONS)
    truths = [list(_outputs(reference, sample)) for sample in samples]

    def score(compiled: Any) -> float:
        errors = [
            np.sqrt(np.square(answer - truth).mean() / max(float(np.square(truth).mean()), 1e-12))
            for sample, expected in zip(samples, truths, strict=True)
            for truth, answer in zip(expected, _outputs(compiled, sample), strict=True)
        ]
        return float(np.mean(errors))

    return score


def _outputs(compiled: Any, sample: Mapping[str, Any]) -> list[np.ndarray]:
    out = compiled(dict(sample))
    return [np.array(out[port]) for port in compiled.outputs]
