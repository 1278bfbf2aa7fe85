"""Translate OpenVINO graphs to ONNX, in floats or in INT8 as Q/DQ; needs the extra `onnx`."""
