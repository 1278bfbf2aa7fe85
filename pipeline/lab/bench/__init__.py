"""Benchmarks of the networks against what their authors released."""
