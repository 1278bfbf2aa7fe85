"""Collects the nodes and constants of an ONNX graph while an OpenVINO graph is walked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from maskstream.pipeline.segmenter.openvino_runtime import ov

Array = npt.NDArray[Any]


class GraphBuilder:
    """Nodes and constants of an ONNX graph, and the ONNX names of OpenVINO's outputs.

    Constants are written only if a node uses them. Integers are int64 throughout, so that shapes
    need no casts.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._names: dict[tuple[str, int], str] = {}
        self._constants: dict[tuple[str, int], Array] = {}
        self._written: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def name_of(self, output: ov.Output) -> str:
        """ONNX name of an output that was translated, or of a constant."""
        key = _key(output)
        if key not in self._names:
            self._names[key] = self.constant(self._constants[key])
        return self._names[key]

    def set_name(self, output: ov.Output, name: str) -> None:
        """Say which ONNX value an output is."""
        self._names[_key(output)] = name

    def add_output(self, output: ov.Output, name: str) -> None:
        """Make an output the graph's output of this name."""
        node = helper.make_node("Identity", [self.name_of(output)], [name], name=f"output_{name}")
        self.nodes.append(node)

    def known(self, output: ov.Output) -> Array | None:
        """The values of an output that is constant; None if it is not."""
        return self._constants.get(_key(output))

    def set_known(self, output: ov.Output, values: Array) -> None:
        """Say that an output is constant."""
        self._constants[_key(output)] = _in_onnx_type(values)

    def constant(self, values: Array) -> str:
        """Write a constant, once, and return its name."""
        values = np.asarray(_in_onnx_type(values), order="C")
        key = (str(values.dtype), values.tobytes(), values.shape)
        if key not in self._written:
            name = f"constant_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(values, name))
            self._written[key] = name
        return self._written[key]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.add_many(operator, *inputs, count=1, **attributes)[0]

    def add_many(self, operator: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        stem = f"{operator}_{len(self.nodes)}"
        outputs = [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=stem, **attributes))
        return outputs


def _key(output: ov.Output) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def _in_onnx_type(values: Array) -> Array:
    """Half floats as float32, integers of shapes as int64; int8 (weights) and bool unchanged."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    if values.dtype in (np.int32, np.uint32, np.uint64):
        return values.astype(np.int64)
    return values
