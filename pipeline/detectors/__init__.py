"""Detectors: an image in, boxes with class and score out; from graphs, files, functions, words."""
