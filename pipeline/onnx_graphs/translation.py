"""Translate an OpenVINO graph to an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.onnx_graphs.builder import Array, GraphBuilder
from maskstream.pipeline.onnx_graphs.int8 import add_activation, depthwise_in_floats, in_floats
from maskstream.pipeline.onnx_graphs.layers import add_convolution, add_product
from maskstream.pipeline.onnx_graphs.operations import OPERATIONS, OPSET
from maskstream.pipeline.segmenter.openvino_runtime import ov

IR_VERSION = 8
"""Version of the ONNX file format: the one of opset 17, so that runtimes since 2022 read it."""

LARGEST_BYTES = 2**31 - 2**20
"""Size of a graph in one ONNX file, which is a protobuf message, with room for metadata."""

_TYPES = {ov.Type.f32: TensorProto.FLOAT, ov.Type.u8: TensorProto.UINT8}
_WEIGHT_MATH = {"Multiply": np.multiply, "Subtract": np.subtract, "Divide": np.divide}

AxisNames = Mapping[str, tuple[str, ...]]
"""Names of the axes of inputs and outputs, by tensor; an axis of fixed length keeps its length."""


def to_onnx(
    graph: ov.Model,
    name: str,
    *,
    axes: AxisNames,
    metadata: Mapping[str, str],
    int8: bool = False,
) -> ModelProto:
    """Write a graph of OpenVINO in ONNX.

    Inputs and outputs keep their names. name: of the graph. int8: keep weights and activations that
    the graph quantizes in eight bits, as Q/DQ, but for depthwise convolutions
    (`onnx_graphs.int8`); otherwise the graph is written in floats (`in_floats`). Raises
    `ModelError` if an operation is not written, or the file would be larger than ONNX allows.
    """
    graph = depthwise_in_floats(graph) if int8 else in_floats(graph)
    builder = GraphBuilder()
    for port in graph.inputs:
        builder.set_name(port, port.any_name)
    for node in graph.get_ordered_ops():
        if node.get_type_name() not in ("Parameter", "Result"):
            _translate(builder, node, int8=int8)
    for port in graph.outputs:
        builder.add_output(port.get_node().input_value(0), port.any_name)
    inputs = [_described(port, axes) for port in graph.inputs]
    outputs = [_described(port, axes) for port in graph.outputs]
    made = helper.make_model(
        helper.make_graph(builder.nodes, name, inputs, outputs, builder.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="maskstream",
    )
    if made.ByteSize() > LARGEST_BYTES:
        raise ModelError(f"the graph {name} is larger than the 2 GB of an ONNX file")
    helper.set_model_props(made, dict(metadata))
    checker.check_model(made)
    return made


def _translate(graph: GraphBuilder, node: ov.Node, *, int8: bool) -> None:
    kind = node.get_type_name()
    if kind == "Constant":
        graph.set_known(node.output(0), np.array(node.get_data()))
        return
    folded = _folded(graph, node)
    if folded is not None:
        graph.set_known(node.output(0), folded)
        return
    names: str | list[str]
    if kind == "FakeQuantize":
        names = add_activation(graph, node)
    elif kind in ("Convolution", "GroupConvolution"):
        names = add_convolution(graph, node, int8=int8)
    elif kind == "MatMul":
        names = add_product(graph, node, int8=int8)
    elif kind in OPERATIONS:
        names = OPERATIONS[kind](graph, node)
    else:
        raise ModelError(
            f"the operation {kind} of {node.get_friendly_name()} is not written in ONNX"
        )
    names = [names] if isinstance(names, str) else names
    for index, name in enumerate(names):
        graph.set_name(node.output(index), name)


def _folded(graph: GraphBuilder, node: ov.Node) -> Array | None:
    """The constant that a node computes from constants, as weights are stored; None otherwise."""
    values = [graph.known(node.input_value(i)) for i in range(node.get_input_size())]
    if not values or any(v is None for v in values):
        return None
    known = [v for v in values if v is not None]
    kind = node.get_type_name()
    if kind == "Convert" and node.get_element_type() == ov.Type.f32:
        return known[0].astype(np.float32)
    if kind in _WEIGHT_MATH and known[0].dtype == np.float32:
        return np.asarray(_WEIGHT_MATH[kind](*known), np.float32)
    if kind in ("Reshape", "Unsqueeze"):
        return known[0].reshape(node.get_output_shape(0))
    return None


def _described(port: ov.Output, axes: AxisNames) -> ValueInfoProto:
    """Name, type and shape of an input or output."""
    name, shape = port.any_name, port.get_partial_shape()
    named = axes.get(name, tuple(f"{name}_{i}" for i in range(len(shape))))
    lengths = [
        label if dimension.is_dynamic else dimension.get_length()
        for dimension, label in zip(shape, named, strict=True)
    ]
    return helper.make_tensor_value_info(name, _TYPES[port.get_element_type()], lengths)
