"""INT8 in ONNX, and what a quantized graph is in floats.

In ONNX, quantized weights and activations are Q/DQ pairs that TensorRT takes. It quantizes
symmetrically: zero points are 0, activations have one scale, weights one per output channel. The
weights of a model folder are so already. Ranges of activations that are not symmetric are widened,
which costs up to one of their eight bits; weights of -128 become -127, the least that TensorRT
takes (docs/measurements/models.md has what both do to masks).
"""

from __future__ import annotations

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
            source = node.input_value(0)
            if _replaces_relu(node):
                source = opset.clamp(source, *_range(node)).output(0)
            node.output(0).replace(source)
        elif _is_scaled_weight(node):
            values, scale = (node.input_value(i).get_node() for i in (0, 1))
            stored = values.input_value(0).get_node().get_data().astype(np.float32)
            node.output(0).replace(opset.constant(stored * scale.get_data()).output(0))
    return copy


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
    scale = graph.constant(np.array(max(-low, high) / _LARGEST, np.float32))
    zero = graph.constant(np.zeros((), np.int8))
    quantized = graph.add("QuantizeLinear", data, scale, zero)
    return graph.add("DequantizeLinear", quantized, scale, zero)


def _range(fake: ov.Node) -> tuple[float, float]:
    low, high = (fake.input_value(i).get_node().get_data() for i in (1, 2))
    return float(low.min()), float(high.max())


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
