"""Post-training INT8 quantisation with NNCF."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import nncf
import openvino as ov


def quantize_graph(
    graph: ov.Model, samples: Sequence[Any], *, transformer: bool, ignored: Sequence[str] = ()
) -> ov.Model:
    """Quantise a graph to INT8 on calibration samples (each one input or a dict of inputs).

    transformer: use NNCF's transformer scheme (SmoothQuant, matmuls of attention).
    ignored: names of operations left in float.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    scope = nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None
    return nncf.quantize(
        graph,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=True,
        ignored_scope=scope,
    )
