"""Which activations INT8 harms: every activation's quantiser alone, and those best left out.

The unit is one activation tensor with a FakeQuantize on it, named by the operations that read it.
Weights stay INT8 throughout: channel-wise, they cost next to nothing (the report's first line).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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


def relax(
    graph: ov.Model, ranked: Sequence[Sensitivity], score: Score, error_max: float
) -> tuple[ov.Model, tuple[str, ...]]:
    """Leave the most sensitive activations in float until the error is at most `error_max`.

    The number left out doubles from step to step, then is narrowed down; gives the graph and the
    names of what stays in float (everything, if even that does not help).
    """
    core = ov.Core()

    def attempt(count: int) -> tuple[ov.Model, float]:
        candidate = without(graph, {row.quantizer for row in ranked[:count]})
        return candidate, score(core.compile_model(candidate, "CPU", _OPTIONS))

    low, high = -1, 0
    best, error = attempt(high)
    while error > error_max and high < len(ranked):
        low, high = high, min(len(ranked), max(1, 2 * high))
        best, error = attempt(high)
    while high - low > 1 and low >= 0:
        middle = (low + high) // 2
        candidate, error = attempt(middle)
        if error <= error_max:
            high, best = middle, candidate
        else:
            low = middle
    return best, tuple(row.quantizer for row in ranked[:high])


def relative_error(truth: Sequence[np.ndarray], answer: Sequence[np.ndarray]) -> float:
    """Root mean square of the difference by that of the truth, averaged over the tensors."""
    ratios = [
        np.sqrt(np.square(a - t).mean() / max(float(np.square(t).mean()), 1e-12))
        for t, a in zip(truth, answer, strict=True)
    ]
    return float(np.mean(ratios))
