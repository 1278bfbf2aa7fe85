"""ONNX files of a model folder: its own, or translated from its OpenVINO graphs and kept."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.extras import need
from maskstream.pipeline.models.find import content_hash, holds_onnx
from maskstream.pipeline.weights.cache import cache_folder


def onnx_folder(folder: Path) -> Path:
    """The folder with the ONNX files of a model folder.

    OpenVINO graphs are translated on first use (a second), in floats, and kept in the cache by
    their content. Raises `ModelError`, and `MissingExtraError` without the package `onnx`.
    """
    if holds_onnx(folder):
        return folder
    kept = cache_folder("onnx", f"{folder.name}-{content_hash(folder)}")
    if not holds_onnx(kept):
        need_onnx()
        from maskstream.pipeline.models.export_onnx import write_folder_as_onnx

        write_folder_as_onnx(folder, kept, int8=False)
    return kept


def need_onnx() -> None:
    """Raise `MissingExtraError` unless the package `onnx` is installed."""
    need("onnx", "writing ONNX files", "the package onnx: pip install 'maskstream[onnx]'")
