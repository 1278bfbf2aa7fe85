"""How each operation of OpenVINO is written in ONNX.

A function gets the builder and a node, and returns the name of the node's output (or one for each).
Attributes and defaults are those of OpenVINO's operation sets (docs.openvino.ai) and of ONNX's
operators (onnx.ai/onnx/operators) at `OPSET`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from onnx import TensorProto

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.onnx_graphs.builder import Array, GraphBuilder
from maskstream.pipeline.segmenter.openvino_runtime import ov

OPSET = 17
"""ONNX operator set: the first with LayerNormalization; TensorRT 8.6 and later read it."""

Operation = Callable[[GraphBuilder, ov.Node], str | list[str]]

_CASTS = {
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT,
    "i32": TensorProto.INT64,
    "i64": TensorProto.INT64,
    "boolean": TensorProto.BOOL,
}
_SAME = {
    "Add": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Divide": "Div",
    "Power": "Pow",
    "Maximum": "Max",
    "Minimum": "Min",
    "Equal": "Equal",
    "Greater": "Greater",
    "Less": "Less",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "LogicalNot": "Not",
    "Select": "Where",
    "Relu": "Relu",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "HSwish": "HardSwish",
    "Exp": "Exp",
    "Log": "Log",
    "Abs": "Abs",
    "Negative": "Neg",
    "Sqrt": "Sqrt",
    "Sin": "Sin",
    "Cos": "Cos",
}


def inputs_of(graph: GraphBuilder, node: ov.Node) -> list[str]:
    """ONNX names of a node's inputs."""
    return [graph.name_of(node.input_value(i)) for i in range(node.get_input_size())]


def constant_input(graph: GraphBuilder, node: ov.Node, index: int) -> Array:
    """Values of an input that must be constant. Raises `ModelError`."""
    values = graph.known(node.input_value(index))
    if values is None:
        raise ModelError(
            f"ONNX needs input {index} of {node.get_friendly_name()} ({node.get_type_name()}) to "
            "be a constant, and it is computed"
        )
    return values


def _ints(values: Array) -> list[int]:
    return [int(v) for v in np.ravel(values)]


def _axis(graph: GraphBuilder, node: ov.Node, index: int) -> int:
    """An axis that an input gives."""
    (axis,) = _ints(constant_input(graph, node, index))
    return axis


def _same(operator: str, graph: GraphBuilder, node: ov.Node) -> str:
    return graph.add(operator, *inputs_of(graph, node))


def _floor(graph: GraphBuilder, node: ov.Node) -> str:
    """Floor; of integers, the integers."""
    operator = "Floor" if node.get_input_element_type(0).is_real() else "Identity"
    return graph.add(operator, *inputs_of(graph, node))


def _mod(graph: GraphBuilder, node: ov.Node) -> str:
    """Remainder that is truncated as C's."""
    return graph.add("Mod", *inputs_of(graph, node), fmod=1)


def _floor_mod(graph: GraphBuilder, node: ov.Node) -> str:
    """Remainder of integers with the sign of the divisor."""
    if node.get_input_element_type(0).is_real():
        raise ModelError("a FloorMod of floats is not written in ONNX")
    return graph.add("Mod", *inputs_of(graph, node))


def _convert(graph: GraphBuilder, node: ov.Node) -> str:
    wanted = node.get_attributes()["destination_type"]
    if wanted not in _CASTS:
        raise ModelError(f"no graph is written with values of type {wanted} in ONNX")
    return graph.add("Cast", *inputs_of(graph, node), to=_CASTS[wanted])


def _clamp(graph: GraphBuilder, node: ov.Node) -> str:
    limits = node.get_attributes()
    low, high = (graph.constant(np.array(limits[n], np.float32)) for n in ("min", "max"))
    return graph.add("Clip", *inputs_of(graph, node), low, high)


def _gelu(graph: GraphBuilder, node: ov.Node) -> str:
    """GELU by the error function, or by its approximation with tanh; operators before opset 20."""
    (x,) = inputs_of(graph, node)
    one, half = (graph.constant(np.array(v, np.float32)) for v in (1.0, 0.5))
    if node.get_attributes().get("approximation_mode") == "TANH":
        three, share = (graph.constant(np.array(v, np.float32)) for v in (3.0, 0.044715))
        scale = graph.constant(np.array(np.sqrt(2 / np.pi), np.float32))
        cubed = graph.add("Mul", graph.add("Pow", x, three), share)
        share_of_x = graph.add("Tanh", graph.add("Mul", graph.add("Add", x, cubed), scale))
    else:
        root = graph.constant(np.array(np.sqrt(2), np.float32))
        share_of_x = graph.add("Erf", graph.add("Div", x, root))
    return graph.add("Mul", graph.add("Mul", x, graph.add("Add", share_of_x, one)), half)


def _swish(graph: GraphBuilder, node: ov.Node) -> str:
    """The input times its sigmoid, or the sigmoid of a factor times it."""
    x, *factor = inputs_of(graph, node)
    scaled = graph.add("Mul", x, *factor) if factor else x
    return graph.add("Mul", x, graph.add("Sigmoid", scaled))


def _transpose(graph: GraphBuilder, node: ov.Node) -> str:
    order = _ints(constant_input(graph, node, 1))
    return graph.add("Transpose", graph.name_of(node.input_value(0)), perm=order)


def _reshape(graph: GraphBuilder, node: ov.Node) -> str:
    zero_copies = node.get_attributes()["special_zero"]
    return graph.add("Reshape", *inputs_of(graph, node), allowzero=int(not zero_copies))


def _axes_as_list(operator: str, graph: GraphBuilder, node: ov.Node) -> str:
    """Unsqueeze and Squeeze."""
    axes = np.ravel(constant_input(graph, node, 1))
    return graph.add(operator, graph.name_of(node.input_value(0)), graph.constant(axes))


def _gather(graph: GraphBuilder, node: ov.Node) -> str:
    if node.get_attributes().get("batch_dims"):
        raise ModelError("a Gather with batch axes is not written in ONNX")
    axis = _axis(graph, node, 2)
    data, indices = (graph.name_of(node.input_value(i)) for i in (0, 1))
    return graph.add("Gather", data, indices, axis=axis)


def _slice(graph: GraphBuilder, node: ov.Node) -> str:
    data, start, stop, step, *axes = inputs_of(graph, node)
    if not axes:
        raise ModelError("a Slice without axes is not written in ONNX")
    return graph.add("Slice", data, start, stop, *axes, step)


def _split(graph: GraphBuilder, node: ov.Node) -> list[str]:
    """Split to given lengths; the one that is -1 is what is left, which ONNX wants as a number."""
    axis, outputs = _axis(graph, node, 1), range(node.get_output_size())
    shapes = [node.get_output_partial_shape(i)[axis] for i in outputs]
    if any(length.is_dynamic for length in shapes):
        raise ModelError("a split of an axis of unknown length is not written in ONNX")
    lengths = graph.constant(np.array([length.get_length() for length in shapes]))
    data = graph.name_of(node.input_value(0))
    return graph.add_many("Split", data, lengths, count=len(shapes), axis=axis)


def _split_evenly(graph: GraphBuilder, node: ov.Node) -> list[str]:
    axis, count = _axis(graph, node, 1), node.get_output_size()
    return graph.add_many("Split", graph.name_of(node.input_value(0)), count=count, axis=axis)


def _concat(graph: GraphBuilder, node: ov.Node) -> str:
    return graph.add("Concat", *inputs_of(graph, node), axis=node.get_attributes()["axis"])


def _einsum(graph: GraphBuilder, node: ov.Node) -> str:
    return graph.add("Einsum", *inputs_of(graph, node), equation=node.get_attributes()["equation"])


def _broadcast(graph: GraphBuilder, node: ov.Node) -> str:
    if node.get_attributes()["mode"] not in ("numpy", "bidirectional"):
        raise ModelError("a Broadcast with explicit axes is not written in ONNX")
    data, shape = (graph.name_of(node.input_value(i)) for i in (0, 1))
    return graph.add("Expand", data, shape)


def _reduce(operator: str, graph: GraphBuilder, node: ov.Node) -> str:
    """Reductions; their axes are an attribute before opset 18, except of sums."""
    axes, keep = constant_input(graph, node, 1), int(node.get_attributes()["keep_dims"])
    data = graph.name_of(node.input_value(0))
    if operator == "ReduceSum":
        return graph.add(operator, data, graph.constant(np.ravel(axes)), keepdims=keep)
    return graph.add(operator, data, axes=_ints(axes), keepdims=keep)


def _softmax(graph: GraphBuilder, node: ov.Node) -> str:
    return graph.add("Softmax", *inputs_of(graph, node), axis=node.get_attributes()["axis"])


def _normalize(graph: GraphBuilder, node: ov.Node) -> str:
    """MVN over the last axis, as layer norm without a learned scale."""
    own, shape = node.get_attributes(), node.get_input_partial_shape(0)
    last = len(shape) - 1
    axes = _ints(constant_input(graph, node, 1))
    if axes not in ([-1], [last]) or shape[last].is_dynamic or not own["normalize_variance"]:
        raise ModelError(f"the MVN over axes {axes} is not written in ONNX")
    scale = graph.constant(np.ones(shape[last].get_length(), np.float32))
    data = graph.name_of(node.input_value(0))
    return graph.add("LayerNormalization", data, scale, axis=-1, epsilon=own["eps"])


def _average(graph: GraphBuilder, node: ov.Node) -> str:
    own = node.get_attributes()
    return graph.add(
        "AveragePool",
        *inputs_of(graph, node),
        kernel_shape=own["kernel"],
        strides=own["strides"],
        pads=[*own["pads_begin"], *own["pads_end"]],
        count_include_pad=int(not own["exclude-pad"]),
        ceil_mode=int(own["rounding_type"] != "floor"),
    )


def _interpolate(graph: GraphBuilder, node: ov.Node) -> str:
    own, data = node.get_attributes(), graph.name_of(node.input_value(0))
    mode = {"nearest": "nearest", "linear_onnx": "linear", "cubic": "cubic"}.get(own["mode"])
    if mode is None or any(own["pads_begin"]) or any(own["pads_end"]) or own["antialias"]:
        raise ModelError(f"the Interpolate {node.get_friendly_name()} is not written in ONNX")
    target = _of_all_axes(graph, node, data)
    return graph.add(
        "Resize",
        *((data, "", target) if _by_scales(node) else (data, "", "", target)),
        mode=mode,
        coordinate_transformation_mode=own["coordinate_transformation_mode"],
        nearest_mode=own["nearest_mode"],
        cubic_coeff_a=float(own.get("cube_coeff", -0.75)),
    )


def _by_scales(node: ov.Node) -> bool:
    return bool(node.get_attributes()["shape_calculation_mode"] == "scales")


def _of_all_axes(graph: GraphBuilder, node: ov.Node, data: str) -> str:
    """Scales or sizes of an Interpolate, given for some axes, for all of them, as ONNX takes them.

    Scales are a constant where they can be, which TensorRT asks for.
    """
    rank, axes = len(node.get_input_partial_shape(0)), _ints(constant_input(graph, node, 2))
    known = graph.known(node.input_value(1))
    if _by_scales(node):
        scales = np.ones(rank, np.float32)
        if known is not None:
            scales[axes] = known
            return graph.constant(scales)
        kept = graph.constant(scales)
    else:
        kept = graph.add("Shape", data)
    given = graph.name_of(node.input_value(1))
    sources = [(given, axes.index(i)) if i in axes else (kept, i) for i in range(rank)]
    each = [graph.add("Gather", s, graph.constant(np.array([i])), axis=0) for s, i in sources]
    return graph.add("Concat", *each, axis=0)


def _pad(graph: GraphBuilder, node: ov.Node) -> str:
    modes = {"constant": "constant", "edge": "edge", "reflect": "reflect"}
    mode = modes.get(node.get_attributes()["pad_mode"])
    if mode is None:
        raise ModelError("a symmetric Pad is not written in ONNX")
    data, before, after, *fill = inputs_of(graph, node)
    return graph.add("Pad", data, graph.add("Concat", before, after, axis=0), *fill, mode=mode)


def _range(graph: GraphBuilder, node: ov.Node) -> str:
    kind = node.get_attributes()["output_type"]
    if kind not in _CASTS:
        raise ModelError(f"a Range of type {kind} is not written in ONNX")
    made = graph.add("Range", *inputs_of(graph, node))
    return graph.add("Cast", made, to=_CASTS[kind])


def _attention(graph: GraphBuilder, node: ov.Node) -> str:
    """Scaled dot product attention, as products and a softmax; a mask is added to the scores."""
    rank, width = len(node.get_input_partial_shape(1)), node.get_input_partial_shape(1)[-1]
    if node.get_attributes()["causal"] or width.is_dynamic or node.get_input_size() > 5:
        raise ModelError("causal attention, or one with sinks, is not written in ONNX")
    query, key, value, *rest = inputs_of(graph, node)
    mask, scale = [*rest, "", ""][:2]
    if node.get_input_size() > 3 and node.get_input_element_type(3) != ov.Type.f32:
        raise ModelError("attention with a mask of bools is not written in ONNX")
    scale = scale or graph.constant(np.array(width.get_length() ** -0.5, np.float32))
    flipped = graph.add("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = graph.add("MatMul", graph.add("Mul", query, scale), flipped)
    if mask:
        scores = graph.add("Add", scores, mask)
    return graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)


OPERATIONS: Mapping[str, Operation] = {
    **{name: partial(_same, operator) for name, operator in _SAME.items()},
    **{name: partial(_reduce, name) for name in ("ReduceMean", "ReduceMax", "ReduceSum")},
    **{name: partial(_axes_as_list, name) for name in ("Unsqueeze", "Squeeze")},
    "ShapeOf": partial(_same, "Shape"),
    "Floor": _floor,
    "Mod": _mod,
    "FloorMod": _floor_mod,
    "Convert": _convert,
    "Clamp": _clamp,
    "Gelu": _gelu,
    "Swish": _swish,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Gather": _gather,
    "Slice": _slice,
    "VariadicSplit": _split,
    "Split": _split_evenly,
    "Concat": _concat,
    "Broadcast": _broadcast,
    "Softmax": _softmax,
    "MVN": _normalize,
    "AvgPool": _average,
    "Interpolate": _interpolate,
    "Pad": _pad,
    "Range": _range,
    "Einsum": _einsum,
    "ScaledDotProductAttention": _attention,
}
"""Operations without weights, by OpenVINO's type."""
