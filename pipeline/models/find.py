"""Find a model by name: embedded models, folders, published checkpoints, files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from maskstream.pipeline.detectors.graph import is_graph_file
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.weights.registry import Registry, near_names

EMBEDDED = Path(__file__).parent
MEMORY = EMBEDDED / "memory"
"""Folder of the embedded memory: its graphs and `memory.yaml`."""


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of an embedded model by name, or the given folder or graph. Raises `ModelError`."""
    if is_graph(Path(name_or_folder)):
        return Path(name_or_folder)
    for folder in (Path(name_or_folder), EMBEDDED / str(name_or_folder)):
        if (folder / "model.yaml").is_file():
            _check_graphs(folder)
            return folder
    if Path(name_or_folder).is_dir():
        raise ModelError(f"the folder {name_or_folder} is no model: it has no model.yaml")
    raise ModelError(_unknown(str(name_or_folder)))


def _check_graphs(folder: Path) -> None:
    """Raise `ModelError` unless a folder holds an encoder and a decoder in one format."""
    for suffix in (".xml", ".onnx"):
        if all((folder / f"{part}{suffix}").is_file() for part in ("encoder", "decoder")):
            return
    raise ModelError(
        f"the folder {folder} is not whole: beside model.yaml it needs encoder.xml and decoder.xml "
        "(each with its .bin), or encoder.onnx and decoder.onnx"
    )


def _unknown(name: str) -> str:
    """Message that there is no model of this name, with similar names."""
    embedded = sorted(p.parent.name for p in EMBEDDED.glob("*/model.yaml"))
    published = [entry.name for entry in Registry.published().entries()]
    near = near_names(name, [*embedded, *published])
    hint = f"did you mean {' or '.join(near)}? Give" if near else "give"
    return (
        f"there is no model '{name}': {hint} the name of an embedded model "
        f"({', '.join(embedded)}) or of 'weights list', an existing checkpoint file, or a "
        "folder with model.yaml, and encoder and decoder as .xml or .onnx, or FastSAM's graph"
    )


def is_graph(model: Path) -> bool:
    """Whether a model is a file with the graph of a detector, whose masks answer prompts."""
    return is_graph_file(model) and model.is_file()


def holds_onnx(folder: Path) -> bool:
    """Whether a model folder was written by `export-model`."""
    return (folder / "encoder.onnx").is_file()


def names_checkpoint(model: str) -> bool:
    """Whether a model's name refers to a checkpoint: a published name or a file but a graph."""
    if is_graph(Path(model)):
        return False
    published = {entry.name for entry in Registry.published().entries()}
    return model in published or Path(model).is_file()


def find_checkpoint(name: str) -> tuple[Path, str | None]:
    """File of a checkpoint by published name or path, and its network if the name implies it.

    Raises `ModelError`.
    """
    if Path(name).is_file():
        return Path(name), None
    registry = Registry.published()
    path = registry.path_of(name)
    if not path.is_file():
        raise ModelError(
            f"the weights of {name} are not in the cache: get them with 'weights get {name}' (from "
            f"{registry.url_of(name)}), or import that file, fetched elsewhere, with "
            "'weights import FILE'"
        )
    return path, name


def content_hash(model: Path) -> str:
    """Hash (12 hex digits) of a checkpoint file, or of a model folder's graphs and weights."""
    digest = hashlib.sha256()
    graphs = sorted(p for p in model.glob("*") if p.suffix in {".xml", ".bin", ".onnx"})
    for file in graphs or [model]:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()[:12]
