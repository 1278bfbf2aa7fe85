"""Promptable segmentation of single pictures; knows nothing of video."""
