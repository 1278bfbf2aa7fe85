"""Runner of OpenVINO graphs, compiled for the input size as in inference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.openvino_runtime import ov

Inputs = Mapping[str, npt.NDArray[Any]]

_PROMPT_AXES: Mapping[str, int] = {"xy": 2, "labels": 2, "mask": 1, "has_mask": 1}
"""Input axes that stay dynamic, as in inference: prompts, and points of a prompt."""


class Runner:
    """Runs a graph on the CPU, recompiled when the input size changes.

    Compiled for all sizes at once, OpenVINO 2026.4.1 applies the scales of an INT8 convolution
    twice where two operations read its output, as every layer norm over channels does: later values
    are almost zero (docs/measurements/quantization.md). threads: None for OpenVINO's choice.
    """

    def __init__(self, graph: ov.Model, threads: int | None = None) -> None:
        self._graph = graph
        self._names = [port.any_name for port in graph.inputs]
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._shapes: dict[str, list[int]] = {}
        self._compiled: Any = None

    def __call__(self, inputs: Inputs) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph; outputs by each of their names. Inputs it does not know are ignored."""
        return self.timed(inputs)[0]

    def timed(self, inputs: Inputs) -> tuple[dict[str, npt.NDArray[np.float32]], float]:
        """Run the graph; return the outputs and the processor time of all threads, seconds.

        Wall time would say how busy the machine is.
        """
        given = {name: inputs[name] for name in self._names if name in inputs}
        compiled = self._compiled_for({name: _shape(name, x) for name, x in given.items()})
        begun = time.process_time()
        out = compiled(given)
        seconds = time.process_time() - begun
        named = {n: np.array(out[n]) for port in compiled.outputs for n in port.get_names()}
        return named, seconds

    def _compiled_for(self, shapes: dict[str, list[int]]) -> Any:
        if shapes != self._shapes:
            graph = self._graph.clone()
            graph.reshape(shapes)
            self._compiled = None  # free the old one's memory first
            self._compiled = ov.Core().compile_model(graph, "CPU", self._options)
            self._shapes = shapes
        return self._compiled


def _shape(name: str, values: npt.NDArray[Any]) -> list[int]:
    free = _PROMPT_AXES.get(name, 0)
    return [-1] * free + list(values.shape[free:])
