"""FP32 and INT8 model folders for the benchmark, created once and cached."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskstream.pipeline.lab.bench.sample_images import sample_image
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.model import ModelCard
from maskstream.pipeline.segmenter.sam import Sam
from maskstream.pipeline.weights.cache import cache_folder

Progress = Callable[[str], None]
CALIBRATION_SIDE = 512
PROMPTS = 4
_SOURCES = (
    "quantization/export.py",
    "quantization/decoder_graph.py",
    "quantization/nncf_method.py",
    "segmenter/efficient_sam.py",
    "segmenter/encoders",
    "segmenter/layers.py",
    "segmenter/mask_decoder.py",
    "segmenter/prompt_encoder.py",
    "segmenter/sam.py",
)


@dataclass(frozen=True, slots=True)
class Folders:
    """Model folders of one network, by precision."""

    fp32: Path
    int8: Path

    def by_precision(self) -> dict[str, Path]:
        """The folders by the precision as rows name it."""
        return {"f32": self.fp32, "int8": self.int8}

    def with_long_side(self, long_side: int) -> Folders:
        """Copies of the folders with another input size."""
        return Folders(*(_copy_with(folder, long_side) for folder in (self.fp32, self.int8)))


def model_folders(model: Sam, progress: Progress) -> Folders:
    """Export and quantize a network, unless it is cached."""
    root = cache_folder("models", f"bench-{model.architecture.name}-{_fingerprint(model)}")
    folders = Folders(root / "fp32", root / "int8")
    if not (folders.int8 / "model.yaml").is_file():
        progress(f"{model.architecture.name}: converting to OpenVINO and quantizing, once")
        _make(model, folders)
    return folders


def _fingerprint(model: Sam) -> str:
    """Hash of the weights, of the code that creates the graphs, and of the tools' versions."""
    digest = hashlib.sha256()
    for name in ("torch", "openvino", "nncf"):
        digest.update(version(name).encode())
    package = Path(__file__).parents[2]
    for source in _SOURCES:
        path = package / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


def _make(model: Sam, folders: Folders) -> None:
    from maskstream.pipeline.quantization.calibration import random_prompts
    from maskstream.pipeline.quantization.export import (
        architecture_of,
        attention_in_fp32,
        export,
        kept_in_fp32,
    )
    from maskstream.pipeline.quantization.nncf_method import quantize_graph
    from maskstream.pipeline.segmenter.openvino_runtime import ov

    architecture = architecture_of(model)
    encoder, decoder = export(model)
    _write(folders.fp32, encoder, decoder, architecture | {"method": "fp32"})

    geometry = InputGeometry.fit(
        (720, 1280),
        CALIBRATION_SIDE,
        architecture["multiple"],
        architecture["cell"],
        stretched=architecture["stretched"],
    )
    images = [sample_image(geometry.input_hw, phase)[None] for phase in range(3)]
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(encoder, "CPU", options)
    taken = {port.any_name for port in decoder.inputs}
    rng = np.random.default_rng(0)
    samples: list[dict[str, Any]] = []
    for image in images:
        out = compiled([image])
        named = {port.any_name: np.array(value) for port, value in out.items()}
        for prompts in random_prompts(geometry, PROMPTS, rng):
            inputs = named | prompts
            samples.append({name: value for name, value in inputs.items() if name in taken})
    int8 = (
        quantize_graph(encoder, [{"image": p} for p in images], ignored=attention_in_fp32(encoder)),
        quantize_graph(decoder, samples, ignored=kept_in_fp32(decoder)),
    )
    _write(folders.int8, *int8, architecture | {"method": "nncf"})


def _write(folder: Path, encoder: Any, decoder: Any, card: dict[str, Any]) -> None:
    """Write a model folder; `model.yaml`, which marks it as complete, is written last."""
    from maskstream.pipeline.segmenter.openvino_runtime import ov

    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(encoder, folder / "encoder.xml", compress_to_fp16=False)
    ov.save_model(decoder, folder / "decoder.xml", compress_to_fp16=False)
    text = yaml.safe_dump(ModelCard.model_validate(card).model_dump(mode="json", by_alias=True))
    (folder / "model.yaml").write_text(text)


def _copy_with(folder: Path, long_side: int) -> Path:
    copy = folder.with_name(f"{folder.name}-{long_side}")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    card = yaml.safe_load((folder / "model.yaml").read_text()) | {"long_side": long_side}
    (copy / "model.yaml").write_text(yaml.safe_dump(card))
    return copy
