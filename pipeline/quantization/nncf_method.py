"""Post-training INT8 quantisation with NNCF.

Two of NNCF's defaults cost accuracy here. Its overflow fix halves the range of the weights for CPUs
without VNNI; on `lite` that nearly doubles the encoder's error. And its fast bias correction works
from the statistics of single layers; the full one, layer after layer through the quantised graph,
takes twice as long once and brings the error down to little more than that of the weights alone
(docs/quantisation.md has the figures).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

_ATTENTION = frozenset({"ScaledDotProductAttention", "Softmax"})


def quantize_graph(
    graph: ov.Model,
    samples: Sequence[Any],
    *,
    ignored: Sequence[str] = (),
    correct_bias: bool = True,
) -> ov.Model:
    """Quantise a graph to INT8 on calibration samples (each one input or a dict of inputs).

    A graph with attention gets NNCF's transformer scheme (SmoothQuant, matmuls of attention).
    ignored: names of operations left in float. correct_bias: let biases make up for the mean error
    of what comes before them.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
    attends = any(op.get_type_name() in _ATTENTION for op in graph.get_ops())
    scope = nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None
    return nncf.quantize(
        graph,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=False,
        ignored_scope=scope,
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE, disable_bias_correction=not correct_bias
        ),
    )
