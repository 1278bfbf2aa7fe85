"""Inspection of compiled OpenVINO graphs: executed precisions."""

from __future__ import annotations

from collections import Counter, defaultdict

from maskstream.pipeline.segmenter.openvino_runtime import ov

INTEGER = frozenset({"i8", "u8"})


def executed_precisions(compiled: ov.CompiledModel) -> dict[str, Counter[str]]:
    """Count the executed precisions by kind of operation, as in {"Convolution": {"u8": 40}}.

    Kinds are the plugin's own: among others `Convolution`, `Deconvolution`, `FullyConnected`,
    `MatMul`, and `Subgraph` (fused element-wise operations; attention is also fused into one).
    """
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        found[info["layerType"].astype(str)][info["runtimePrecision"].astype(str)] += 1
    return dict(found)
