"""Run the memory network in OpenVINO, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.bank import Group, RememberedFrame
from maskstream.pipeline.memory.cells import choose_cells
from maskstream.pipeline.memory.features import FrameFeatures

FloatMap = npt.NDArray[np.float32]

GRAPHS = ("eye", "values", "read", "head")
_EMPTY_LOGIT = 12.0  # magnitude at which logits are clipped before aggregation


@dataclass(frozen=True, slots=True)
class Look:
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
class Answers:
    """Joint prediction for several objects.

    logits: float32 [O, 2h, 2w] at stride 4, each object against all others and the background.
    presence: [O], 0..1.
    """

    logits: FloatMap
    presence: FloatMap


class MemoryModel:
    """The graphs of the memory, compiled for the CPU. Raises `ModelError`."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        from maskstream.pipeline.segmenter.openvino_runtime import ov

        core = ov.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._graphs = {
                name: core.compile_model(core.read_model(folder / f"{name}.xml"), "CPU", options)
                for name in GRAPHS
            }
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load the memory in {folder}: {error}") from error

    def look(self, features: FrameFeatures) -> Look:
        """Compute keys, queries and reduced features of a frame."""
        maps = (features.s4, features.s8, features.skip_s8, features.s16, features.embedding)
        key, query, likeness, reduced = self._run("eye", [m[None] for m in maps])
        return Look(reduced.shape[-2:], key, query, likeness, reduced, features.s4[None])

    def remember(
        self, look: Look, masks: Mapping[int, FloatMap], *, step: int, limit: int
    ) -> RememberedFrame:
        """Encode a frame to remember; masks: float32 [2h, 2w] 0..1 by object id."""
        ids = list(masks)
        stacked = np.stack([masks[i] for i in ids] or [np.zeros_like(look.s4[0, 0])])[:, None]
        union = np.minimum(stacked.sum(0), 1)
        own = np.concatenate([stacked, np.zeros_like(stacked[:1])])
        others = np.maximum(union[None] - own, 0)
        (values,) = self._run("values", [look.features, own, others])
        h, w = look.grid_hw
        coverage = union[0].reshape(h, 2, w, 2).mean((1, 3))
        cells, weights = choose_cells(coverage.astype(np.float32), step, limit)
        return RememberedFrame(
            look.key[0, cells],
            look.likeness[0, cells],
            np.log(weights),
            {i: values[n, cells] for n, i in enumerate(ids)},
            values[-1, cells],
        )

    def answer(
        self,
        look: Look,
        reference: Group,
        recent: Group | None,
        propagated: FloatMap,
        known: Sequence[bool],
    ) -> Answers:
        """Predict the masks of all objects of both groups jointly.

        propagated: masks float32 [O, 2h, 2w] 0..1; known: which of them are valid.
        """
        count = len(propagated)
        like_reference, from_reference = self._read(look, reference, count)
        if recent is None:
            like_recent = np.zeros_like(like_reference)
            from_recent = np.zeros_like(from_reference)
        else:
            like_recent, from_recent = self._read(look, recent, count)
        shared = np.concatenate([look.features, like_reference, like_recent], 1)
        read = np.concatenate([from_reference, from_recent], 1)
        flags = np.array([[float(k), float(recent is not None)] for k in known], np.float32)
        given = (propagated * flags[:, :1, None])[:, None]
        beside = np.clip(given.sum(0, keepdims=True) - given, 0, 1)
        logits, presence = self._run("head", [shared, read, given, beside, flags, look.s4])
        shown = 1 / (1 + np.exp(-presence))
        return Answers(joint_logits(logits[:, 0]), np.asarray(shown, np.float32))

    def _read(self, look: Look, group: Group, count: int) -> tuple[FloatMap, FloatMap]:
        """Attention readout of a group: likeness [1, L, h, w] and values [O, V, h, w]."""
        (found,) = self._run("read", [look.query, group.keys, group.values, group.bias])
        h, w = look.grid_hw
        depth = look.likeness.shape[-1]
        maps = found[0].T.reshape(-1, h, w)
        likeness = maps[:depth] * look.likeness[0].T.reshape(-1, h, w)
        return likeness[None], maps[depth:].reshape(count, -1, h, w)

    def _run(self, name: str, inputs: list[FloatMap]) -> list[FloatMap]:
        graph = self._graphs[name]
        out = graph([np.ascontiguousarray(x, np.float32) for x in inputs], share_inputs=True)
        return [np.array(out[port]) for port in graph.outputs]


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
