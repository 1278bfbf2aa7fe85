"""The learned memory without one of its parts, for ablations (`eval video --ablate`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.memory.bank import MemoryBank
from maskstream.pipeline.memory.model import FrameKeys, JointPrediction, MemoryModel

FloatMap = npt.NDArray[np.float32]

_LOGIT_OF_SHARES = (4.0, 2.0, -2.5)
"""Of the object's share in what prompted and recent frames say, and a constant: the logits that the
head starts from before it is trained."""


Part = Literal["head", "joint", "recent", "propagated"]
"""What can be left out of the memory's predictions.

head: masks are the readout itself, the object's share of what each cell attends to. joint: each
object is predicted alone, without the masks of others and without soft aggregation. recent: only
prompted keyframes are read. propagated: the propagated mask is no input.
"""


class AblatedMemory(MemoryModel):
    """A memory without some of its parts. Raises `ModelError`."""

    def __init__(self, folder: Path, without: Collection[Part], *, threads: int) -> None:
        super().__init__(folder, threads=threads)
        self._without = frozenset(without)

    def predict(
        self, frame: FrameKeys, bank: MemoryBank, propagated: Mapping[int, FloatMap | None]
    ) -> JointPrediction:
        """See `MemoryModel.predict`."""
        if "recent" in self._without:
            bank = bank.references_only()
        if "propagated" in self._without:
            propagated = dict.fromkeys(propagated)
        if "joint" not in self._without:
            return super().predict(frame, bank, propagated)
        predict = super().predict
        alone = [predict(frame, bank, {i: mask}) for i, mask in propagated.items()]
        return JointPrediction(
            np.concatenate([each.logits for each in alone]),
            np.concatenate([each.presence for each in alone]),
        )

    def _run(self, name: str, inputs: list[FloatMap]) -> list[FloatMap]:
        if name == "values" and "joint" in self._without:
            features, own, others = inputs
            inputs = [features, own, np.zeros_like(others)]
        if name == "head" and "head" in self._without:
            return _readout(inputs[1], inputs[2].shape[-2:])
        return super()._run(name, inputs)


def _readout(read: FloatMap, size_hw: tuple[int, ...]) -> list[FloatMap]:
    """Logits [O, 1, 2h, 2w] and presence logits [O] of the readouts [O, 2 V, h, w] alone.

    The last but one of V values is the object's share.
    """
    depth = read.shape[1] // 2
    prompted, recent, constant = _LOGIT_OF_SHARES
    small = prompted * read[:, depth - 2] + recent * read[:, -2] + constant
    logits = np.stack([cv2.resize(x, size_hw[::-1], interpolation=cv2.INTER_LINEAR) for x in small])
    return [logits[:, None], logits.max((1, 2))]
