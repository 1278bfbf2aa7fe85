"""Run the objectness head in OpenVINO, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.objectness.boxes import boxes_from_maps
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.segmenter.proposals import ScoredBoxes

INPUTS = ("features_s8", "features_s16", "embedding")
"""The encoder's outputs that the head reads, by name."""
SCORE_MIN = 0.1
"""Score below which a box is not even ranked."""
LIMIT = 100
"""Boxes of a frame at most."""
_BOX_IOU_MAX = 0.7


class ObjectnessModel:
    """The head, compiled for the CPU; for any input size. Raises `ModelError`."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        from maskstream.pipeline.segmenter.openvino_runtime import cpu_options, ov, reason

        core = ov.Core()
        try:
            graph = core.read_model(folder / "objectness.xml")
            self._graph = core.compile_model(graph, "CPU", cpu_options(threads))
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load the head in {folder}: {reason(error)}"
            ) from error

    def propose(
        self, features: Features, geometry: InputGeometry, limit: int = LIMIT
    ) -> ScoredBoxes:
        """The boxes of a frame, best first, `limit` at most.

        features, geometry: of the embedded encoder.
        """
        maps = self._maps(features)
        return boxes_from_maps(
            maps, geometry, score_min=SCORE_MIN, iou_max=_BOX_IOU_MAX, limit=limit
        )

    def _maps(self, features: Features) -> list[FloatMap]:
        """The network's outputs, float32 [5, h, w] for each stride."""
        inputs = [np.ascontiguousarray(features.tensors[name]) for name in INPUTS]
        out = self._graph(inputs, share_inputs=True)
        return [np.array(out[port])[0] for port in self._graph.outputs]
