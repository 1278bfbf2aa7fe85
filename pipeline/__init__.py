"""Subpackages of the pipeline: sources, segmenters, tracking, stores, exports and others."""
