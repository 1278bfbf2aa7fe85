"""Export of models to folders of ONNX files; imports `onnx`, and torch only for checkpoints.

What is exported in floats depends on what there is: of a checkpoint its own weights, of a quantized
folder the floats that its INT8 weights stand for. `lite` is the latter: its repository has it only
in INT8. The memory and the objectness head, which read the features of `lite`, come with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from maskstream.pipeline.errors import ConfigError, ModelError
from maskstream.pipeline.memory.card import read_memory_card
from maskstream.pipeline.memory.model import GRAPHS
from maskstream.pipeline.models.find import (
    EMBEDDED,
    MEMORY,
    content_hash,
    find_checkpoint,
    find_model,
    holds_onnx,
    is_graph,
    names_checkpoint,
)
from maskstream.pipeline.models.head import OBJECTNESS
from maskstream.pipeline.models.resolve import require_training_extra, resolve_model
from maskstream.pipeline.onnx_graphs.files import Provenance, write_onnx_folder
from maskstream.pipeline.segmenter.model import ModelCard, read_card
from maskstream.pipeline.segmenter.openvino_padding import fold_paddings
from maskstream.pipeline.segmenter.openvino_runtime import ov, reason
from maskstream.pipeline.types import RgbImage
from maskstream.pipeline.weights.registry import Registry

_OWN_LICENSE = "Apache-2.0"
_UNKNOWN_LICENSE = "that of the weights, which is not known here"


def export_onnx(
    name: str,
    folder: Path,
    *,
    int8: bool = False,
    images: Callable[[int], Sequence[RgbImage]] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write a model as ONNX files, and return them.

    name: of an embedded model or a published checkpoint, or a model folder or a checkpoint file.
    int8: Q/DQ for TensorRT. images: for the calibration of a checkpoint that was not quantized
    before. Raises `ModelError`, `ConfigError` if images are needed, and `MissingExtraError`.
    """
    if not names_checkpoint(name):
        model = find_model(name)
        if is_graph(model) or holds_onnx(model):
            raise ModelError(
                f"{model} cannot be exported: give an embedded model's name, a checkpoint or a "
                "folder of OpenVINO graphs"
            )
        return write_folder_as_onnx(model, folder, int8=int8)
    require_training_extra(f"exporting the checkpoint {name}")
    if not int8:
        return _write_checkpoint(name, folder)

    def calibrating(count: int) -> Sequence[RgbImage]:
        if images is None:
            raise ConfigError(f"{name} is to be quantized first: give images with --calibration")
        return images(count)

    quantized = resolve_model(name, calibrating, report)
    license_name = _license_of(name, read_card(quantized).name)
    return write_folder_as_onnx(quantized, folder, int8=True, license_name=license_name)


def write_folder_as_onnx(
    model: Path, folder: Path, *, int8: bool, license_name: str | None = None
) -> list[Path]:
    """Write the OpenVINO graphs of a model folder as ONNX files, and return them.

    license_name: of the weights, if known. Raises `ModelError`.
    """
    card = read_card(model)
    parts = {name: model / f"{name}.xml" for name in ("encoder", "decoder")}
    if content_hash(model) == read_memory_card(MEMORY).encoder_hash:
        parts |= {f"memory_{name}": MEMORY / f"{name}.xml" for name in GRAPHS}
        parts["objectness"] = OBJECTNESS / "objectness.xml"
    try:
        graphs = {name: fold_paddings(ov.Core().read_model(path)) for name, path in parts.items()}
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load the model in {model}: {reason(error)}") from error
    embedded = EMBEDDED.resolve() in model.resolve().parents
    known = _OWN_LICENSE if embedded else license_name or _UNKNOWN_LICENSE
    source = Provenance(card.source or card.name, known)
    return write_onnx_folder(graphs, card, source, folder, int8=int8)


def _write_checkpoint(name: str, folder: Path) -> list[Path]:
    """Write the FP32 networks of a checkpoint."""
    from maskstream.pipeline.models.checkpoint import load_network
    from maskstream.pipeline.quantization.export import architecture_of, export

    path, architecture = find_checkpoint(name)
    model = load_network(path, architecture)
    encoder, decoder = export(model)
    card = ModelCard(**architecture_of(model), method="fp32", source=path.name)
    graphs = {"encoder": encoder, "decoder": decoder}
    provenance = Provenance(path.name, _license_of(name, card.name))
    return write_onnx_folder(graphs, card, provenance, folder, int8=False)


def _license_of(name: str, architecture: str) -> str:
    """License of a checkpoint: of the published one of that name, else what is known of others."""
    published = {entry.name: entry.license for entry in Registry.published().entries()}
    if name in published:
        return published[name]
    if architecture in published:
        return f"{_UNKNOWN_LICENSE}; published {architecture}: {published[architecture]}"
    return _UNKNOWN_LICENSE
