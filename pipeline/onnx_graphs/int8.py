"""INT8 in ONNX, and what a quantized graph is in floats.

In ONNX, quantized weights and activations are Q/DQ pairs that TensorRT takes. It quantizes
symmetrically: zero points are 0, activations have one scale, weights one per output channel. The
weights of a model folder are so already. Ranges of activations that are not symmetric are widened,
which costs up to one of their eight bits; weights of -128 become -127, the least that TensorRT
takes. Depthwise convolutions, which sum over few products, bear neither: they stay in floats
(docs/measurements/models.md has what each does to masks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.onnx_graphs.builder import GraphBuilder
from maskstream.pipeline.segmenter.openvino_runtime import opset, ov

_LARGEST = 127
_MOVES_VALUES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze"})
_NOT_NEGATIVE = frozenset({"Clamp", "Relu", "Sigmoid", "Softmax"})


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A weight in eight bits.

    values: int8 [out, ...]. scale: float32 [out], or [1] for all.
    """

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]


def in_floats(graph: ov.Model) -> ov.Model:
    """A copy of a quantized graph that computes in floats.

    Weights are the floats that their eight bits stand for, activations are not rounded. Where a
    FakeQuantize replaced a ReLU it becomes a Clamp to its range.
    """
    copy = graph.clone()
    for node in copy.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            node.output(0).replace(_unrounded(node))
        elif _is_scaled_weight(node):
            node.output(0).replace(_weight_in_floats(node))
    return copy


def depthwise_in_floats(graph: ov.Model) -> ov.Model:
    """A copy of a quantized graph whose depthwise convolutions compute in floats."""
    copy = graph.clone()
    for node in copy.get_ordered_ops():
        if not _is_depthwise(node):
            continue
        fake, weight = (node.input_value(i).get_node() for i in (0, 1))
        if weight.get_type_name() == "Reshape":
            weight = weight.input_value(0).get_node()
        if fake.get_type_name() == "FakeQuantize" and _is_scaled_weight(weight):
            node.input(0).replace_source_output(_unrounded(fake))
            weight.output(0).replace(_weight_in_floats(weight))
    return copy


def _is_depthwise(node: ov.Node) -> bool:
    """Whether it is a convolution of groups with one channel each, in and out."""
    if node.get_type_name() != "GroupConvolution":
        return False
    return list(node.get_input_partial_shape(1).get_min_shape()[1:3]) == [1, 1]


def _unrounded(fake: ov.Node) -> ov.Output:
    """What a FakeQuantize rounds, clipped where it replaced a ReLU."""
    source = fake.input_value(0)
    return opset.clamp(source, *_range(fake)).output(0) if _replaces_relu(fake) else source


def _weight_in_floats(scaled: ov.Node) -> ov.Output:
    values, scale = (scaled.input_value(i).get_node() for i in (0, 1))
    stored = values.input_value(0).get_node().get_data().astype(np.float32)
    return opset.constant(stored * scale.get_data()).output(0)


def quantized_weight(layer: ov.Node) -> QuantizedWeight | None:
    """The weight of a convolution or product if it and the activations are quantized, else None."""
    if _origin(layer.input_value(0)).get_type_name() != "FakeQuantize":
        return None
    scaled = layer.input_value(1).get_node()
    shape = list(layer.input_value(1).get_partial_shape().get_min_shape())
    if scaled.get_type_name() == "Reshape":
        scaled = scaled.input_value(0).get_node()
    if not _is_scaled_weight(scaled):
        return None
    stored, scale = scaled.input_value(0).get_node().input_value(0), scaled.input_value(1)
    return QuantizedWeight(
        np.maximum(stored.get_node().get_data(), -_LARGEST).reshape(shape),
        np.asarray(scale.get_node().get_data(), np.float32).ravel(),
    )


def _is_scaled_weight(node: ov.Node) -> bool:
    """Whether a node multiplies a weight in eight bits with its scale."""
    if node.get_type_name() != "Multiply":
        return False
    converted, scale = (node.input_value(i).get_node() for i in (0, 1))
    if converted.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
        return False
    stored = converted.input_value(0).get_node()
    return bool(stored.get_type_name() == "Constant" and stored.get_element_type() == ov.Type.i8)


def add_weight(graph: GraphBuilder, weight: QuantizedWeight, axis: int) -> str:
    """Write a quantized weight with its DequantizeLinear; axis: of the output channels."""
    scale = np.broadcast_to(weight.scale, weight.values.shape[axis])
    inputs = (weight.values, scale, np.zeros(scale.shape, np.int8))
    names = [graph.constant(values) for values in inputs]
    return graph.add("DequantizeLinear", *names, axis=axis)


def add_activation(graph: GraphBuilder, fake: ov.Node) -> str:
    """Write a FakeQuantize of activations as QuantizeLinear and DequantizeLinear."""
    low, high = _range(fake)
    data = graph.name_of(fake.input_value(0))
    if _replaces_relu(fake):
        data = graph.add("Relu", data)
    bound = min(max(-low, high), _largest_possible(fake))
    scale = graph.constant(np.array(bound / _LARGEST, np.float32))
    zero = graph.constant(np.zeros((), np.int8))
    quantized = graph.add("QuantizeLinear", data, scale, zero)
    return graph.add("DequantizeLinear", quantized, scale, zero)


def _range(fake: ov.Node) -> tuple[float, float]:
    low, high = (fake.input_value(i).get_node().get_data() for i in (1, 2))
    return float(low.min()), float(high.max())


def _largest_possible(fake: ov.Node) -> float:
    """Bound of the values before a FakeQuantize, which its range may exceed: that of a ReLU6."""
    source = _origin(fake.input_value(0))
    if source.get_type_name() != "Clamp":
        return math.inf
    own = source.get_attributes()
    return max(-float(own["min"]), float(own["max"]))


def _replaces_relu(fake: ov.Node) -> bool:
    """Whether it clips what may be negative at zero.

    OpenVINO removes a ReLU or ReLU6 before a FakeQuantize whose range lies within the function's.
    """
    node = _origin(fake.input_value(0))
    return _range(fake)[0] >= 0 and node.get_type_name() not in _NOT_NEGATIVE


def _origin(output: ov.Output) -> ov.Node:
    """The node that computed the values of an output."""
    node = output.get_node()
    while node.get_type_name() in _MOVES_VALUES:
        node = node.input_value(0).get_node()
    return node
