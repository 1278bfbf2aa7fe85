"""Quantization of a checkpoint to a model folder: convert, quantize, compare, write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml

from maskstream.pipeline.quantization.calibration import prepare
from maskstream.pipeline.quantization.export import architecture_of, export
from maskstream.pipeline.quantization.gate import Comparison, Gate, compare, refuse_if_unfit
from maskstream.pipeline.quantization.nncf_method import NncfResult, quantize_graphs
from maskstream.pipeline.quantization.tinysam_ptq import Goal, PtqResult, quantize_model
from maskstream.pipeline.segmenter.model import ModelCard
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import Sam
from maskstream.pipeline.types import RgbImage

METHODS = ("nncf", "tinysam")
Progress = Callable[[str], None]
USED = (
    0.8  # share of the loss allowed by the gate that calibration images may use; the rest is margin
)


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """Graphs of a quantized model with their measurements.

    sensitivity: error by layer when quantized alone, worst first; empty if not requested.
    """

    encoder: ov.Model
    decoder: ov.Model
    comparison: Comparison
    card: ModelCard
    sensitivity: dict[str, float]


def quantize(
    model: Sam,
    images: Sequence[RgbImage],
    *,
    method: str = "nncf",
    gate: Gate | None = None,
    source: str = "",
    threads: int = 2,
    sensitivity: bool = False,
    report: Progress = lambda _: None,
) -> QuantizedModel:
    """Quantize a network on images: every other one is for calibration, the rest for the gate.

    Layers are kept in FP32 until masks on the calibration images pass the gate with a margin,
    unless the weights are untrained or there is no gate. method: one of `METHODS`. sensitivity:
    with NNCF, measure every layer quantized alone even if not needed (minutes); the other method
    always does. Raises `ModelError` if the result does not pass the gate (None: no gate).
    """
    architecture = architecture_of(model)
    fit = {
        key: architecture[key] for key in ("long_side", "multiple", "pad_rgb", "cell", "stretched")
    }
    prepared = [prepare(image, **fit) for image in images]
    calibrating, judging = (
        sorted(half, key=lambda image: image.image.shape)  # grouped by size
        for half in (prepared[::2], prepared[1::2] or prepared)
    )
    report("converting to OpenVINO")
    fp32 = export(model)
    report(f"quantizing on {len(calibrating)} images ({method})")
    goal = _goal(gate) if gate is not None and gate.trained else None
    found: PtqResult | NncfResult
    if method == "tinysam":
        found = quantize_model(
            model, calibrating, goal=goal, report=report, progress=partial(_report_some, report)
        )
        errors = {name: layer.error for name, layer in found.layers.items()}
    else:
        found = quantize_graphs(
            fp32, calibrating, goal=goal, sensitivity=sensitivity, report=report
        )
        errors = found.errors
    int8 = (found.encoder, found.decoder)
    report(f"comparing with FP32 on {len(judging)} other images")
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
        kept_in_fp32=[f"{name}: {why}" for name, why in found.kept_in_fp32.items()],
        versions={name: version(name) for name in ("openvino", "nncf", "torch")},
    )
    ranked = dict(sorted(errors.items(), key=lambda item: -item[1]))
    return QuantizedModel(*int8, comparison, card, ranked)


def _report_some(report: Progress, what: str, done: int, total: int) -> None:
    """Report every 20th step, and the last."""
    if done % 20 == 0 or done == total:
        report(f"{what}: {done} of {total}")


def _goal(gate: Gate) -> Goal:
    """Goal on calibration images, with a margin so that other images pass the gate, too."""
    return Goal(
        *(
            1 - (1 - smallest_sufficient) * USED
            for smallest_sufficient in (gate.mask_iou_min, gate.cosine_min)
        )
    )


def write_folder(quantized: QuantizedModel, folder: Path) -> None:
    """Write a model folder atomically."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    ov.save_model(quantized.encoder, part / "encoder.xml", compress_to_fp16=False)
    ov.save_model(quantized.decoder, part / "decoder.xml", compress_to_fp16=False)
    card = quantized.card.model_dump(mode="json", by_alias=True)
    (part / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    if quantized.sensitivity:
        report = {name: round(error, 5) for name, error in quantized.sensitivity.items()}
        (part / "sensitivity.yaml").write_text(yaml.safe_dump(report, sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
