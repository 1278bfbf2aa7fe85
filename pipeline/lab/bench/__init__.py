"""Benchmarks: networks against their authors' code, and the pipeline against simple baselines."""
