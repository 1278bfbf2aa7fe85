"""The gate: compares a quantized model with its FP32 graphs, and refuses it if inaccurate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.quantization.calibration import PreparedImage
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.everything import coarse_points
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD, POSITIVE
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.trackers.iou import paired_mask_iou

GRID_SIDE = 6  # prompts per side of the grid on every image
SMALLEST_MASK = 0.001  # share of the image; the IoU of smaller masks is noise
TIMED_ON = 4  # images; every timed run is preceded by an untimed one

Graphs = tuple[ov.Model, ov.Model]
Tensors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Gate:
    """Minimum values for a quantized model. trained: False skips masks, which mean nothing then."""

    mask_iou_min: float = 0.97
    cosine_min: float = 0.995
    speedup_min: float = 1.0
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """INT8 compared with FP32 on held-out images, timed alternately in this process.

    mask_iou: mean over masks decoded from a grid of points and from the boxes of those masks.
    cosine: of the embeddings, mean. *_ms: medians of the processor time of one run.
    """

    mask_iou: float
    cosine: float
    encoder_fp32_ms: float
    encoder_int8_ms: float
    decoder_fp32_ms: float
    decoder_int8_ms: float

    @property
    def encoder_speedup(self) -> float:
        """Speedup of the encoder: FP32 time / INT8 time."""
        return self.encoder_fp32_ms / self.encoder_int8_ms

    @property
    def decoder_speedup(self) -> float:
        """Speedup of the decoder: FP32 time / INT8 time."""
        return self.decoder_fp32_ms / self.decoder_int8_ms

    def faults(self, gate: Gate) -> list[str]:
        """Failures of the gate as phrases with figures; empty if it passes."""
        faults = []
        if gate.trained and self.mask_iou < gate.mask_iou_min:
            faults.append(f"mask IoU {self.mask_iou:.4f} is below {gate.mask_iou_min}")
        if self.cosine < gate.cosine_min:
            faults.append(f"embedding cosine {self.cosine:.4f} is below {gate.cosine_min}")
        if self.encoder_speedup < gate.speedup_min:
            faults.append(
                f"the INT8 encoder takes {self.encoder_int8_ms:.1f} ms, "
                f"FP32 {self.encoder_fp32_ms:.1f} ms of processor time"
            )
        return faults


def refuse_if_unfit(comparison: Comparison, gate: Gate) -> None:
    """Raise `ModelError` with the figures if the gate is not passed."""
    faults = comparison.faults(gate)
    if faults:
        raise ModelError(
            "the quantized model is refused: "
            + "; ".join(faults)
            + ". Calibrate on more or more varied frames, use the other --method, or write it "
            "anyway with --force"
        )


def compare(
    fp32: Graphs, int8: Graphs, images: Sequence[PreparedImage], *, threads: int
) -> Comparison:
    """Compare INT8 graphs with FP32 graphs on images not used for calibration.

    Masks and embeddings are compared on all images, times are measured on `TIMED_ON`.
    """
    (exact, exact_decoder), (quick, quick_decoder) = (
        [Runner(graph, threads) for graph in graphs] for graphs in (fp32, int8)
    )
    ious: list[float] = []
    cosines: list[float] = []
    times: dict[str, list[float]] = {"e32": [], "e8": [], "d32": [], "d8": []}
    step = -(-len(images) // TIMED_ON)
    for index, prepared in enumerate(images):
        timed = index % step == 0
        image = {"image": prepared.image}
        reference, features = exact(image), quick(image)
        if timed:
            times["e32"].append(exact.timed(image)[1])
            times["e8"].append(quick.timed(image)[1])
        cosines.append(cosine(reference["embedding"], features["embedding"]))
        decode = partial(answer_on, exact_decoder, reference)
        for prompts, ambiguous, truth in grid_answers(decode, prepared):
            answer = quick_decoder(features | prompts)
            if timed:
                times["d32"].append(exact_decoder.timed(reference | prompts)[1])
                times["d8"].append(quick_decoder.timed(features | prompts)[1])
            ious += mask_ious(*chosen_masks(truth, answer, ambiguous))
    if not ious:
        ious = [1.0]
    return Comparison(
        float(np.mean(ious)), float(np.mean(cosines)), *(1000 * median(t) for t in times.values())
    )


def answer_on(decoder: Runner, features: Tensors, prompts: Tensors) -> Tensors:
    """Run a decoder on features and prompts; unused features are ignored."""
    return decoder(features | prompts)


def grid_answers(
    decode: Callable[[Tensors], Tensors], prepared: PreparedImage
) -> Iterator[tuple[Tensors, bool, Tensors]]:
    """Yield prompt batches for one image with the FP32 network's answers.

    First a grid of points, then the boxes of their masks. decode: runs the FP32 network on prompts,
    giving `masks` and `iou`. The flag tells whether the prompts are ambiguous, that is, answered by
    the best of three masks.
    """
    geometry = prepared.geometry
    count = GRID_SIDE**2
    h, w = geometry.grid_hw
    size = np.array(geometry.valid_hw[::-1], np.float32)
    points = (coarse_points(GRID_SIDE) * size / geometry.side)[:, None].astype(np.float32)
    fixed: Tensors = {
        "mask": np.zeros((count, 1, h, w), np.float32),
        "has_mask": np.zeros(count, np.float32),
        "grid": geometry.cell_centers(),
    }
    clicks = fixed | {
        "xy": np.concatenate([points, np.zeros_like(points)], 1),
        "labels": np.tile(np.array([POSITIVE, PAD], np.float32), (count, 1)),
    }
    answer = decode(clicks)
    yield clicks, True, answer
    best = 1 + np.argmax(answer["iou"][:, 1:], axis=1)
    masks = answer["masks"][np.arange(count), best] > 0
    boxes = fixed | {
        "xy": boxes_of(masks).reshape(-1, 2, 2) * geometry.cell / np.float32(geometry.side),
        "labels": np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.float32), (count, 1)),
    }
    yield boxes, False, decode(boxes)


def chosen_masks(
    truth: Tensors, answer: Tensors, ambiguous: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits [N, h, w] of the masks to compare, selected by FP32's predicted IoU for both."""
    count = len(truth["iou"])
    index = 1 + np.argmax(truth["iou"][:, 1:], axis=1) if ambiguous else np.zeros(count, np.intp)
    return truth["masks"][np.arange(count), index], answer["masks"][np.arange(count), index]


def mask_ious(truth: npt.NDArray[np.float32], answer: npt.NDArray[np.float32]) -> list[float]:
    """IoU of masks given as logits [N, h, w], without masks that are too small."""
    a, b = truth > 0, answer > 0
    counted = a.mean((1, 2)) >= SMALLEST_MASK
    return [float(v) for v in paired_mask_iou(a[counted], b[counted])]


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Cosine similarity of two embeddings, flattened."""
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
