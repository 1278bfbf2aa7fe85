"""Compare exported ONNX files, run by ONNX Runtime on the CPU, with OpenVINO in floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.pipeline.onnx_graphs.int8 import in_floats
from maskstream.pipeline.quantization.calibration import prepare
from maskstream.pipeline.quantization.gate import (
    answer_on,
    chosen_masks,
    cosine,
    grid_answers,
    mask_ious,
)
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.model import read_card
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSession
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.types import RgbImage


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement with OpenVINO in floats.

    masks: number of masks compared, of a grid of clicks and of boxes on every image. mean_iou,
    least_iou: of these masks. cosine: least of an embedding.
    """

    masks: int
    mean_iou: float
    least_iou: float
    cosine: float


def compare_with_openvino(
    model: Path, exported: Path, images: Sequence[RgbImage], *, threads: int = 2
) -> Parity:
    """Answer the prompts of the quantization's gate with both engines and compare the masks.

    model: folder of OpenVINO graphs, which are run in floats. exported: folder of ONNX files. The
    mask of a click is the one of three that OpenVINO ranks first. Raises `ModelError`.
    """
    parts = ("encoder", "decoder")
    card = read_card(model)
    encoder, decoder = (
        Runner(in_floats(ov.Core().read_model(model / f"{part}.xml")), threads) for part in parts
    )
    own_encoder, own_decoder = (
        OnnxSession(exported / f"{part}.onnx", {}, threads) for part in parts
    )
    ious: list[float] = []
    cosines: list[float] = []
    for image in images:
        prepared = prepare(image, card.long_side, card.multiple, card.pad_rgb, card.cell)
        features, own = (run({"image": prepared.image}) for run in (encoder, own_encoder))
        cosines.append(cosine(features["embedding"], own["embedding"]))
        decode = partial(answer_on, decoder, features)
        for prompts, ambiguous, truth in grid_answers(decode, prepared):
            ious += mask_ious(*chosen_masks(truth, own_decoder({**own, **prompts}), ambiguous))
    least = float(min(ious, default=1.0))
    return Parity(len(ious), float(np.mean(ious or [1.0])), least, min(cosines))
