"""INT8 quantization of the memory's convolutions with NNCF, and its gate."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.bank import (
    RECENT_CELLS,
    REFERENCE_CELLS,
    MemoryBank,
    MemorySettings,
)
from maskstream.pipeline.memory.features import NAMES, FrameFeatures
from maskstream.pipeline.memory.model import JointPrediction, MemoryModel, sigmoid
from maskstream.pipeline.quantization.nncf_method import quantize_graph
from maskstream.pipeline.segmenter.openvino_runtime import ov, without_telemetry
from maskstream.trackers.iou import paired_mask_iou

with without_telemetry():
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

QUANTIZED = ("values", "head")
"""Graphs that are quantized; the keys and the attention decide what is compared with what."""
MASK_IOU_MIN = 0.95
"""Least mean IoU of INT8 masks with FP32 masks on held-out sequences."""
PRESENCE_MIN = 0.98
"""Least share of presence scores on the same side of one half."""
_RANGES = RangeEstimatorParametersSet.MINMAX
"""Objects differ more than images do: the mean of their ranges cuts off the largest values."""
_LEAST_CELLS = 16  # of stride 4; the IoU of smaller masks is noise

FloatMap = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class MemoryComparison:
    """INT8 compared with FP32: mean mask IoU, and share of equal presence decisions."""

    mask_iou: float
    presence: float


def quantize_memory(folder: Path, sequences: Sequence[Arrays]) -> dict[str, ov.Model]:
    """Quantize the graphs of an FP32 memory; returns all of its graphs.

    sequences: features and labels of training sequences (`lab.training.video.cache`), to calibrate.
    """
    recorder = _Recorder(folder)
    for arrays in sequences:
        for _ in _predictions(recorder, arrays):
            pass
    core = ov.Core()
    graphs: dict[str, ov.Model] = {}
    for name, inputs in recorder.inputs.items():
        graph = core.read_model(folder / f"{name}.xml")
        if name in QUANTIZED:
            graph = quantize_graph(graph, inputs, ranges=_RANGES)
        graphs[name] = graph
    return graphs


def compare_memories(
    int8: MemoryModel, fp32: MemoryModel, sequences: Sequence[Arrays]
) -> MemoryComparison:
    """Compare the predictions of two memories on sequences, each from its own memory bank."""
    ious: list[float] = []
    equal: list[npt.NDArray[np.bool_]] = []
    for arrays in sequences:
        for a, b in zip(_predictions(int8, arrays), _predictions(fp32, arrays), strict=True):
            masks = a.logits > 0, b.logits > 0
            large = masks[1].sum((1, 2)) >= _LEAST_CELLS
            ious.extend(paired_mask_iou(*masks)[large].tolist())
            equal.append((a.presence > 0.5) == (b.presence > 0.5))
    return MemoryComparison(float(np.mean(ious)), float(np.concatenate(equal).mean()))


def check_memory(found: MemoryComparison) -> None:
    """Raise `ModelError` unless a quantized memory is accurate."""
    if found.mask_iou < MASK_IOU_MIN or found.presence < PRESENCE_MIN:
        raise ModelError(
            f"the INT8 memory is not accurate: mask IoU with FP32 {found.mask_iou:.3f} (least "
            f"{MASK_IOU_MIN}), equal presence {found.presence:.3f} (least {PRESENCE_MIN})"
        )


def write_int8(
    folder: Path, calibration: Sequence[Arrays], held_out: Sequence[Arrays]
) -> MemoryComparison:
    """Replace the FP32 graphs of a folder by INT8 ones if they pass the gate.

    Raises `ModelError` if they do not; the folder is unchanged then.
    """
    with TemporaryDirectory() as scratch:
        for name, graph in quantize_memory(folder, calibration).items():
            ov.save_model(graph, Path(scratch) / f"{name}.xml", compress_to_fp16=True)
        int8 = MemoryModel(Path(scratch), threads=1)
        found = compare_memories(int8, MemoryModel(folder, threads=1), held_out)
        check_memory(found)
        for file in Path(scratch).iterdir():
            shutil.copy(file, folder)
    return found


class _Recorder(MemoryModel):
    """Keeps the inputs of every graph."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, threads=1)
        self.inputs: dict[str, list[list[FloatMap]]] = {}

    def _run(self, name: str, inputs: list[FloatMap]) -> list[FloatMap]:
        self.inputs.setdefault(name, []).append([np.array(x, np.float32) for x in inputs])
        return super()._run(name, inputs)


def _predictions(model: MemoryModel, arrays: Arrays) -> Iterator[JointPrediction]:
    """Predictions of a sequence's frames in order, each remembered."""
    count = len(arrays["labels"])
    frames = [
        model.keys_of(FrameFeatures(*(np.asarray(arrays[n][t], np.float32) for n in NAMES)))
        for t in range(count)
    ]
    first = np.asarray(arrays["labels"][0], np.uint8)
    ids = [int(i) for i in np.unique(first) if i]
    bank = MemoryBank(MemorySettings())
    masks = {i: _halved(first == i) for i in ids}
    bank.add_reference(model.remember(frames[0], masks, REFERENCE_CELLS))
    for t in range(1, count):
        predicted = model.predict(frames[t], bank, masks)
        yield predicted
        masks = dict(zip(ids, sigmoid(predicted.logits), strict=True))
        bank.add_recent(model.remember(frames[t], masks, RECENT_CELLS), float(t))


def _halved(mask: npt.NDArray[np.bool_]) -> FloatMap:
    """Coverage of a mask at half its size."""
    height, width = mask.shape
    size = (width // 2, height // 2)
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)
