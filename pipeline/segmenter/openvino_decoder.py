"""Mask decoder compiled by OpenVINO for one frame size, with constants folded in.

The graph (pipeline/quantization/export.py) names three inner tensors. POSITIONS depends only on the
grid and becomes a constant. DENSE and DENSE_SIDES are added to the image by a mask prompt: without
one they are zero and all prompts share the image's part of the first layer, so the graph is
compiled a second time with zeros in their place. Networks with drawn prompts (`lite`) do not have
these two, and one graph serves both cases, as it does where there are no mask prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.prompt_batches import Tensors, in_batches, mask_inputs

POSITIONS, DENSE, DENSE_SIDES = "fold:positions", "fold:dense", "fold:dense_sides"
"""Names of the inner tensors; the prefix distinguishes them from names made by tracing."""

MASK_INPUTS = frozenset({"mask", "has_mask"})
"""Inputs that decoders of networks without mask prompts do not have."""


class OpenVinoDecoder:
    """Decodes any number of prompts on the features of one frame size.

    graph: the decoder's `ov.Model`, modified in place. cells: as `InputGeometry.cell_centers`.
    feature_shapes: of the encoder's outputs. options: of OpenVINO.
    """

    def __init__(
        self,
        core: Any,
        graph: Any,
        cells: FloatMap,
        feature_shapes: Mapping[str, list[int]],
        options: Mapping[str, Any],
    ) -> None:
        h, w = self._grid_hw = cells.shape[1:]
        names = [port.any_name for port in graph.inputs]
        self.features = [name for name in names if name in feature_shapes]
        shapes = {name: feature_shapes[name] for name in self.features}
        shapes |= {"xy": [-1, -1, 2], "labels": [-1, -1], "grid": [2, h, w]}
        shapes |= {"mask": [-1, 1, h, w], "has_mask": [-1]}
        graph.reshape({name: shapes[name] for name in names})
        self._takes_masks = "mask" in names
        _fold_grid(core, graph, cells, options)
        self._masked = core.compile_model(graph, "CPU", options)
        self._unmasked = None
        if _find(graph, DENSE) is not None:
            self._unmasked = core.compile_model(_without_mask(graph), "CPU", options)

    def __call__(
        self,
        features: Tensors,
        xy: npt.NDArray[np.float32],
        labels: npt.NDArray[np.float32],
        mask: FloatMap | None,
        has_mask: npt.NDArray[np.float32] | None,
    ) -> tuple[FloatMap, npt.NDArray[np.float32]]:
        """Logits [B, 4, 4h, 4w] and IoU [B, 4] of B prompts; arguments as `PromptBatch`.

        xy is normalized by the padded square.
        """
        prompts = {"xy": xy, "labels": labels}
        compiled = self._unmasked
        if mask is not None or compiled is None:
            compiled = self._masked
            if self._takes_masks:
                prompts |= mask_inputs(len(xy), self._grid_hw, mask, has_mask)
        image = {name: features[name] for name in self.features}

        def run(batch: Tensors) -> tuple[FloatMap, npt.NDArray[np.float32]]:
            out = compiled({**image, **batch}, share_outputs=True)
            return out["masks"], out["iou"]

        return in_batches(run, prompts, self._grid_hw)


def _find(graph: Any, name: str) -> Any | None:
    """The output of the graph that computes a named tensor, if any."""
    outputs = (output for op in graph.get_ordered_ops() for output in op.outputs())
    return next((output for output in outputs if name in output.get_names()), None)


def _replace(output: Any, values: npt.NDArray[np.float32]) -> None:
    from maskstream.pipeline.segmenter.openvino_runtime import opset as ops

    output.replace(ops.constant(values).output(0))


def _fold_grid(core: Any, graph: Any, cells: FloatMap, options: Mapping[str, Any]) -> None:
    """Replace the grid, and what depends only on it, by constants."""
    from maskstream.pipeline.segmenter.openvino_runtime import opset as ops
    from maskstream.pipeline.segmenter.openvino_runtime import ov

    grid = next(p for p in graph.get_parameters() if "grid" in p.output(0).get_names())
    positions = _find(graph, POSITIONS)
    if positions is None:
        raise RuntimeError(f"the decoder has no tensor '{POSITIONS}': quantize it again")
    part = ov.Model([ops.result(positions)], [grid]).clone()
    values = core.compile_model(part, "CPU", options)([cells])[0]
    _replace(positions, values)
    _replace(grid.output(0), cells)
    graph.remove_parameter(grid)


def _without_mask(graph: Any) -> Any:
    """A copy of the graph without mask prompts."""
    from maskstream.pipeline.segmenter.openvino_runtime import ov

    copy = graph.clone()
    for name in (DENSE, DENSE_SIDES):
        output = _find(copy, name)
        if output is not None:
            channels = output.get_partial_shape()[2].get_length()
            _replace(output, np.zeros((1, 1, channels), np.float32))
    parameters = [p for p in copy.get_parameters() if not p.output(0).get_names() & MASK_INPUTS]
    return ov.Model(copy.get_results(), parameters)
