"""Layers with weights in ONNX: convolutions and matrix products, in floats or INT8."""

from __future__ import annotations

import numpy as np

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.onnx_graphs.builder import GraphBuilder
from maskstream.pipeline.onnx_graphs.int8 import QuantizedWeight, add_weight, quantized_weight
from maskstream.pipeline.onnx_graphs.operations import constant_input
from maskstream.pipeline.segmenter.openvino_runtime import ov


def add_convolution(graph: GraphBuilder, node: ov.Node, *, int8: bool) -> str:
    """Convolution, also of groups, whose weights have an axis of groups in OpenVINO."""
    own = node.get_attributes()
    if own["auto_pad"] not in ("explicit", "notset"):
        raise ModelError(f"the padding {own['auto_pad']} of a convolution is not written in ONNX")
    shape = list(node.get_input_partial_shape(1).get_min_shape())
    groups = 1
    if node.get_type_name() == "GroupConvolution":
        groups, shape = shape[0], [shape[0] * shape[1], *shape[2:]]
    quantized = quantized_weight(node) if int8 else None
    if quantized is None:
        weight = graph.constant(constant_input(graph, node, 1).reshape(shape))
    else:
        in_onnx = QuantizedWeight(quantized.values.reshape(shape), quantized.scale)
        weight = add_weight(graph, in_onnx, 0)
    return graph.add(
        "Conv",
        graph.name_of(node.input_value(0)),
        weight,
        group=groups,
        strides=own["strides"],
        dilations=own["dilations"],
        pads=[*own["pads_begin"], *own["pads_end"]],
        kernel_shape=shape[2:],
    )


def add_product(graph: GraphBuilder, node: ov.Node, *, int8: bool) -> str:
    """Matrix product; what OpenVINO transposes inside is transposed before."""
    own = node.get_attributes()
    left = graph.name_of(node.input_value(0))
    if own["transpose_a"]:
        left = _transposed(graph, left, len(node.get_input_partial_shape(0)))
    quantized = quantized_weight(node) if int8 else None
    known = graph.known(node.input_value(1))
    if quantized is not None and quantized.values.ndim == 2:
        values = quantized.values.T if own["transpose_b"] else quantized.values
        axis = 1 if own["transpose_b"] else 0
        right = add_weight(graph, QuantizedWeight(values, quantized.scale), axis)
    elif known is not None:
        right = graph.constant(np.swapaxes(known, -1, -2) if own["transpose_b"] else known)
    else:
        right = graph.name_of(node.input_value(1))
        if own["transpose_b"]:
            right = _transposed(graph, right, len(node.get_input_partial_shape(1)))
    return graph.add("MatMul", left, right)


def _transposed(graph: GraphBuilder, name: str, rank: int) -> str:
    order = [*range(rank - 2), rank - 1, rank - 2]
    return graph.add("Transpose", name, perm=order)
