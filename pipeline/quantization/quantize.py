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
from pipeline.quantization.sensitivity import error_against, sensitivities
from pipeline.quantization.tinysam_ptq import Goal, quantize_model
from pipeline.segmenter.model import ModelCard
from pipeline.segmenter.sam import Sam
from pipeline.types import RgbImage

METHODS = ("nncf", "tinysam")
Progress = Callable[[str], None]
PROMPTS_A_PICTURE = 4
USED = 0.8  # of the loss that the gate allows, on calibrating pictures; the rest is margin
SENSITIVITY_SAMPLES = 3  # of each graph; every activation costs a compilation and as many runs


@dataclass(frozen=True, slots=True)
class Quantised:
    """Graphs of a quantised model with what was measured of them.

    sensitivity: error by layer when it alone is quantised, worst first; empty if not asked for.
    """

    encoder: ov.Model
    decoder: ov.Model
    comparison: Comparison
    card: ModelCard
    sensitivity: dict[str, float]


def quantise(
    model: Sam,
    pictures: Sequence[RgbImage],
    *,
    method: str = "nncf",
    gate: Gate | None = None,
    source: str = "",
    threads: int = 2,
    sensitivity: bool = False,
    say: Progress = lambda _: None,
) -> Quantised:
    """Quantise a network on pictures: every other one calibrates, the others judge.

    method: one of `METHODS`. sensitivity: with NNCF, also measure every activation quantised alone
    (minutes); the other method finds that out in any case. Raises `ModelError` if the result does
    not pass the gate (None: no gate).
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
    if method == "tinysam":
        goal = _goal(gate) if gate is not None and gate.trained else None
        found = quantize_model(model, calibrating, goal=goal, say=say)
        int8 = (found.encoder, found.decoder)
        floats = [f"{name}: {reason}" for name, reason in found.kept_in_float.items()]
        errors = {name: layer.error for name, layer in found.layers.items()}
    else:
        samples = _nncf_samples(fp32, calibrating)
        int8 = _quantise_with_nncf(fp32, samples)
        floats = ["decoder: everything but the upsampling (docs/quantisation.md)"]
        errors = _nncf_sensitivity(fp32, samples, say) if sensitivity else {}
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
        speed={k: round(v, 2) for k, v in asdict(comparison).items() if k.endswith("_ms")},
        kept_in_float=floats,
        versions={name: version(name) for name in ("openvino", "nncf", "torch")},
    )
    ranked = dict(sorted(errors.items(), key=lambda item: -item[1]))
    return Quantised(*int8, comparison, card, ranked)


def _goal(gate: Gate) -> Goal:
    """What calibrating pictures must reach so that others, too, may be expected to pass."""
    return Goal(*(1 - (1 - least) * USED for least in (gate.mask_iou_min, gate.cosine_min)))


@dataclass(frozen=True, slots=True)
class _Samples:
    """Inputs by name of both graphs, for calibration."""

    encoder: list[dict[str, Any]]
    decoder: list[dict[str, Any]]


def _nncf_samples(fp32: tuple[ov.Model, ov.Model], pictures: Sequence[PreparedPicture]) -> _Samples:
    encoder, decoder = fp32
    compiled = ov.Core().compile_model(encoder, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rng = np.random.default_rng(0)
    names = {name for port in decoder.inputs for name in port.get_names()}
    decoder_samples: list[dict[str, Any]] = []
    for picture in pictures:
        out = compiled([picture.image])
        features = {
            name: np.array(out[name])
            for port in compiled.outputs
            for name in port.get_names()
            if name in names
        }
        for prompts in random_prompts(picture.geometry, PROMPTS_A_PICTURE, rng):
            decoder_samples.append(features | prompts)
    return _Samples([{"image": p.image} for p in pictures], decoder_samples)


def _quantise_with_nncf(
    fp32: tuple[ov.Model, ov.Model], samples: _Samples, *, correct_bias: bool = True
) -> tuple[ov.Model, ov.Model]:
    encoder, decoder = fp32
    return (
        quantize_graph(encoder, samples.encoder, correct_bias=correct_bias),
        quantize_graph(
            decoder,
            samples.decoder,
            ignored=kept_in_float(decoder),
            correct_bias=correct_bias,
        ),
    )


def _nncf_sensitivity(
    fp32: tuple[ov.Model, ov.Model], samples: _Samples, say: Progress
) -> dict[str, float]:
    uncorrected = _quantise_with_nncf(fp32, samples, correct_bias=False)
    errors: dict[str, float] = {}
    for part, exact, quick, inputs in zip(
        ("encoder", "decoder"), fp32, uncorrected, (samples.encoder, samples.decoder), strict=True
    ):
        score = error_against(exact, inputs[:SENSITIVITY_SAMPLES])
        weights, rows = sensitivities(quick, score, say)
        errors[f"{part}: weights of all layers"] = weights
        errors |= {f"{part}: {', '.join(row.read_by)}": row.error for row in rows}
    return errors


def write_folder(quantised: Quantised, folder: Path) -> None:
    """Write a model folder; it appears whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    ov.save_model(quantised.encoder, part / "encoder.xml", compress_to_fp16=False)
    ov.save_model(quantised.decoder, part / "decoder.xml", compress_to_fp16=False)
    card = quantised.card.model_dump(mode="json")
    (part / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    if quantised.sensitivity:
        report = {name: round(error, 5) for name, error in quantised.sensitivity.items()}
        (part / "sensitivity.yaml").write_text(yaml.safe_dump(report, sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
