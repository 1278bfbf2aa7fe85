"""ONNX files next to the OpenVINO graphs that they were written from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from maskstream.pipeline.onnx_graphs.int8 import in_floats
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.openvino_runtime import ov


class OnnxRunner:
    """Runs an ONNX file on the CPU; inputs that it does not have are ignored."""

    def __init__(self, file: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(file), options)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        given = {port.name: inputs[port.name] for port in self.session.get_inputs()}
        names = [port.name for port in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, given), strict=True))


def openvino_in_floats(graph: Path) -> Runner:
    """Runs an OpenVINO graph in FP32, whether or not it is quantized."""
    return Runner(in_floats(ov.Core().read_model(graph)), threads=1)
