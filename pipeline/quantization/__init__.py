"""Conversion of torch networks to OpenVINO graphs and their quantisation (extra `train`)."""
