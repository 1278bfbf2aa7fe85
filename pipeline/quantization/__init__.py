"""Conversion of torch networks to OpenVINO graphs and their quantization (extra `train`)."""
