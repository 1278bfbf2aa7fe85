"""The product's own proposals as a detector: encoder and objectness head in one ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskstream.pipeline.models.find import EMBEDDED
from maskstream.pipeline.onnx_graphs.translation import to_onnx
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.types import SizeHW

LOG_SIDE_MAX = 5.0  # as `objectness.boxes` has it


def write_own_detector(file: Path, input_hw: SizeHW = (288, 512)) -> Path:
    """Write a detector of the class "object", with YOLO's output [1, 5, anchors]."""
    import onnx
    import openvino.opset13 as ops

    core = ov.Core()
    encoder = core.read_model(EMBEDDED / "lite" / "encoder.xml")
    encoder.reshape([1, *input_hw, 3])
    head = core.read_model(EMBEDDED / "objectness" / "objectness.xml")
    sources = {port.any_name: port.get_node().input_value(0) for port in encoder.outputs}
    for port in head.inputs:
        port.replace(sources[port.any_name])
    maps_of = [port.get_node().input_value(0) for port in head.outputs]
    ov.Model(maps_of, encoder.get_parameters(), "maps").validate_nodes_and_infer_types()
    rows = []
    for maps in maps_of:
        height, width = (int(side) for side in maps.get_shape()[2:])
        stride = np.float32(input_hw[0] / height)
        cells = ops.reshape(maps, np.array([1, 5, height * width]), special_zero=False)
        score, sides = (
            ops.slice(cells, [first], [last], [1], [1]) for first, last in ((0, 1), (1, 5))
        )
        sides = ops.multiply(ops.exp(ops.minimum(sides, np.float32(LOG_SIDE_MAX))), stride)
        before, after = (ops.slice(sides, [i], [i + 2], [1], [1]) for i in (0, 2))
        y, x = np.mgrid[:height, :width].reshape(2, 1, -1)
        centers = (np.concatenate([x, y])[None] + 0.5).astype(np.float32) * stride
        middle = ops.add(centers, ops.multiply(ops.subtract(after, before), np.float32(0.5)))
        rows.append(ops.concat([middle, ops.add(before, after), ops.sigmoid(score)], 1))
    graph = ov.Model([ops.result(ops.concat(rows, 2))], encoder.get_parameters(), "proposals")
    graph.outputs[0].get_tensor().set_names({"output0"})
    metadata = {"names": "{0: 'object'}", "task": "detect", "imgsz": str(list(input_hw))}
    onnx.save(to_onnx(graph, "proposals", axes={}, metadata=metadata), file)
    return file
