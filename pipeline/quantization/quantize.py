"""From a checkpoint to a model folder: convert, quantise, judge, write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import yaml

from pipeline.quantization.calibration import PreparedPicture, prepare, random_prompts
from pipeline.quantization.export import architecture_of, export, kept_in_float
from pipeline.quantization.gate import Comparison, Gate, compare, refuse_if_unfit
from pipeline.quantization.nncf_method import quantize_graph
from pipeline.quantization.tinysam_ptq.method import quantize_model
from pipeline.segmenter.model import ModelCard
from pipeline.segmenter.sam import Sam
from pipeline.types import RgbImage

METHODS = ("nncf", "tinysam")
Progress = Callable[[str], None]
PROMPTS_A_PICTURE = 4


@dataclass(frozen=True, slots=True)
class Quantised:
    """Graphs of a quantised model with what was measured of them."""

    encoder: ov.Model
    decoder: ov.Model
    comparison: Comparison
    card: ModelCard


def quantise(
    model: Sam,
    pictures: Sequence[RgbImage],
    *,
    method: str = "nncf",
    gate: Gate | None = None,
    source: str = "",
    threads: int = 2,
    say: Progress = lambda _: None,
) -> Quantised:
    """Quantise a network on pictures: every other one calibrates, the others judge.

    method: one of `METHODS`. Raises `ModelError` if the result does not pass the gate (None: no
    gate).
    """
    architecture = architecture_of(model)
    prepared = [
        prepare(p, architecture["long_side"], architecture["multiple"], architecture["pad_rgb"])
        for p in pictures
    ]
    calibrating, judging = prepared[::2], prepared[1::2] or prepared
    say("converting to OpenVINO")
    fp32 = export(model)
    say(f"quantising on {len(calibrating)} pictures ({method})")
    kept_in_float: dict[str, str] = {}
    if method == "tinysam":
        found = quantize_model(model, calibrating)
        int8 = (found.encoder, found.decoder)
        kept_in_float = found.kept_in_float
    else:
        int8 = _quantise_with_nncf(fp32, calibrating)
    say(f"comparing with FP32 on {len(judging)} other pictures")
    comparison = compare(fp32, int8, judging, threads=threads)
    if gate is not None:
        refuse_if_unfit(comparison, gate)
    card = ModelCard(
        **architecture,
        method=method,
        source=source,
        calibration={"pictures": len(calibrating), "judged_on": len(judging)},
        accuracy={
            "mask_iou_int8_vs_fp32": round(comparison.mask_iou, 4),
            "embedding_cosine": round(comparison.cosine, 5),
        },
        kept_in_float=[f"{name}: {reason}" for name, reason in kept_in_float.items()],
        speed={k: round(v, 2) for k, v in asdict(comparison).items() if k.endswith("_ms")},
        versions={name: version(name) for name in ("openvino", "nncf", "torch")},
    )
    return Quantised(*int8, comparison, card)


def _quantise_with_nncf(
    fp32: tuple[ov.Model, ov.Model], pictures: Sequence[PreparedPicture]
) -> tuple[ov.Model, ov.Model]:
    encoder, decoder = fp32
    compiled = ov.Core().compile_model(encoder, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rng = np.random.default_rng(0)
    names = {name for port in decoder.inputs for name in port.get_names()}
    samples: list[dict[str, Any]] = []
    for picture in pictures:
        out = compiled([picture.image])
        features = {
            name: np.array(out[name])
            for port in compiled.outputs
            for name in port.get_names()
            if name in names
        }
        for prompts in random_prompts(picture.geometry, PROMPTS_A_PICTURE, rng):
            samples.append(features | prompts)
    return (
        quantize_graph(encoder, [{"image": p.image} for p in pictures], transformer=False),
        quantize_graph(decoder, samples, transformer=True, ignored=kept_in_float(decoder)),
    )


def write_folder(quantised: Quantised, folder: Path) -> None:
    """Write a model folder; it appears whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    ov.save_model(quantised.encoder, part / "encoder.xml", compress_to_fp16=False)
    ov.save_model(quantised.decoder, part / "decoder.xml", compress_to_fp16=False)
    card = quantised.card.model_dump(mode="json")
    (part / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
