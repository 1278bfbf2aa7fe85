"""Run the memory network in OpenVINO, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.bank import CellLimits, MemoryBank, RememberedFrame, group
from maskstream.pipeline.memory.cells import choose_cells
from maskstream.pipeline.memory.features import FrameFeatures

FloatMap = npt.NDArray[np.float32]

GRAPHS = ("keys", "values", "read", "head")
_Frames = tuple[tuple[RememberedFrame, ...], tuple[RememberedFrame, ...]]
_EMPTY_LOGIT = 12.0  # magnitude at which logits are clipped before aggregation


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """Keys, queries and features of a frame for the memory.

    grid_hw: cells of stride 8. key, query: float32 [1, h w, K]. likeness: [1, h w, L]. features:
    [1, C, h, w]. s4: [1, C4, 2h, 2w].
    """

    grid_hw: tuple[int, int]
    key: FloatMap
    query: FloatMap
    likeness: FloatMap
    features: FloatMap
    s4: FloatMap


@dataclass(frozen=True, slots=True)
class JointPrediction:
    """Joint prediction for several objects.

    logits: float32 [O, 2h, 2w] at stride 4, each object against all others and the background.
    presence: [O], 0..1.
    """

    logits: FloatMap
    presence: FloatMap


class MemoryModel:
    """The graphs of the memory, compiled for the CPU. Raises `ModelError`."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        from maskstream.pipeline.segmenter.openvino_runtime import cpu_options, ov, reason

        core = ov.Core()
        options = cpu_options(threads)
        try:
            self._graphs = {
                name: core.compile_model(core.read_model(folder / f"{name}.xml"), "CPU", options)
                for name in GRAPHS
            }
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load the memory in {folder}: {reason(error)}"
            ) from error

    def keys_of(self, features: FrameFeatures) -> FrameKeys:
        """Compute keys, queries and reduced features of a frame."""
        maps = (features.s4, features.s8, features.skip_s8, features.s16, features.embedding)
        key, query, likeness, reduced = self._run("keys", [m[None] for m in maps])
        return FrameKeys(reduced.shape[-2:], key, query, likeness, reduced, features.s4[None])

    def remember(
        self, frame: FrameKeys, masks: Mapping[int, FloatMap], limits: CellLimits
    ) -> RememberedFrame:
        """Encode a frame to remember; masks: float32 [2h, 2w] 0..1 by object id, some or more."""
        ids = list(masks)
        own = np.stack([masks[i] for i in ids])[:, None]
        union = np.minimum(own.sum(0), 1)
        others = np.maximum(union[None] - own, 0)
        (values,) = self._run("values", [frame.features, own, others])
        h, w = frame.grid_hw
        coverage = union[0].reshape(h, 2, w, 2).mean((1, 3))
        cells, weights = choose_cells(coverage.astype(np.float32), limits.step, limits.cells)
        return RememberedFrame(
            frame.key[0, cells],
            frame.likeness[0, cells],
            np.log(weights),
            {i: values[n, cells] for n, i in enumerate(ids)},
        )

    def predict(
        self, frame: FrameKeys, bank: MemoryBank, propagated: Mapping[int, FloatMap | None]
    ) -> JointPrediction:
        """Predict the masks of remembered objects jointly, in the order of `propagated`.

        propagated: mask float32 [2h, 2w] 0..1 by object id; None where it is not known.
        """
        ids = list(propagated)
        masks = np.zeros((len(ids), *frame.s4.shape[-2:]), np.float32)
        known = np.zeros(len(ids), np.float32)
        for n, mask in enumerate(propagated.values()):
            if mask is not None:
                masks[n], known[n] = mask, 1
        beside = np.clip(masks.sum(0, keepdims=True) - masks, 0, 1)
        alike: dict[_Frames, list[int]] = {}
        for n, object_id in enumerate(ids):
            alike.setdefault(bank.frames_of(object_id), []).append(n)
        logits = np.empty_like(masks)
        presence = np.empty(len(ids), np.float32)
        for (references, recent), rows in alike.items():
            wanted = [ids[n] for n in rows]
            shared, read = self._read_both(frame, references, recent, wanted)
            flags = np.stack([known[rows], np.full(len(rows), float(bool(recent)))], 1)
            inputs = [shared, read, masks[rows, None], beside[rows, None], flags, frame.s4]
            found, score = self._run("head", inputs)
            logits[rows], presence[rows] = found[:, 0], sigmoid(score)
        return JointPrediction(joint_logits(logits), presence)

    def _read_both(
        self,
        frame: FrameKeys,
        references: Sequence[RememberedFrame],
        recent: Sequence[RememberedFrame],
        ids: Sequence[int],
    ) -> tuple[FloatMap, FloatMap]:
        """The head's inputs from the memory: maps [1, C, h, w], and [O, C, h, w] by object."""
        like_reference, from_reference = self._read(frame, references, ids)
        if recent:
            like_recent, from_recent = self._read(frame, recent, ids)
        else:
            like_recent = np.zeros_like(like_reference)
            from_recent = np.zeros_like(from_reference)
        shared = np.concatenate([frame.features, like_reference, like_recent], 1)
        return shared, np.concatenate([from_reference, from_recent], 1)

    def _read(
        self, frame: FrameKeys, frames: Sequence[RememberedFrame], ids: Sequence[int]
    ) -> tuple[FloatMap, FloatMap]:
        """Attention readout of frames: likeness [1, L, h, w] and values [O, V, h, w]."""
        cells = group(frames, ids)
        (found,) = self._run("read", [frame.query, cells.keys, cells.values, cells.bias])
        h, w = frame.grid_hw
        depth = frame.likeness.shape[-1]
        maps = found[0].T.reshape(-1, h, w)
        likeness = maps[:depth] * frame.likeness[0].T.reshape(-1, h, w)
        return likeness[None], maps[depth:].reshape(len(ids), -1, h, w)

    def _run(self, name: str, inputs: list[FloatMap]) -> list[FloatMap]:
        graph = self._graphs[name]
        out = graph([np.ascontiguousarray(x, np.float32) for x in inputs], share_inputs=True)
        return [np.array(out[port]) for port in graph.outputs]


def sigmoid(logits: FloatMap) -> FloatMap:
    """Probabilities of logits, float32 of the same shape."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def joint_logits(logits: FloatMap) -> FloatMap:
    """Joint logits [O, h, w] of each object against all others and the background.

    Soft aggregation (STM, arXiv 1904.00607): the background's probability is that of no object.
    """
    clipped = np.clip(logits, -_EMPTY_LOGIT, _EMPTY_LOGIT)
    none = -np.logaddexp(0, clipped).sum(0)
    background = none - np.log(-np.expm1(np.minimum(none, -1e-6)))
    everything = np.concatenate([background[None], clipped])
    total = np.logaddexp.reduce(everything, 0)
    rest = np.log(-np.expm1(np.minimum(clipped - total, -1e-6)))
    return np.asarray(clipped - total - rest, np.float32)
