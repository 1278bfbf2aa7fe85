"""TinySAM's post-training quantisation, with real integer kernels (extra `train`)."""

from pipeline.quantization.tinysam_ptq.method import PtqResult, QuantizedLayer, quantize_model

__all__ = ["PtqResult", "QuantizedLayer", "quantize_model"]
