"""TinySAM's post-training quantization, with real integer kernels (extra `train`)."""

from maskstream.pipeline.quantization.tinysam_ptq.fp32_layers import Goal
from maskstream.pipeline.quantization.tinysam_ptq.layers import QuantizedLayer
from maskstream.pipeline.quantization.tinysam_ptq.method import PtqResult, quantize_model

__all__ = ["Goal", "PtqResult", "QuantizedLayer", "quantize_model"]
