"""Features of a segmenter that finds all masks of a frame when it encodes it, as FastSAM does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.segmenter.proposals import Proposal


@dataclass(frozen=True, slots=True)
class FoundMasks(Features):
    """The masks of one frame, which everything mode and seeding take as they are.

    logits: float32 [N, 4h, 4w], largest mask first; scores: float32 [N]. tensors: empty.
    """

    logits: FloatMap
    scores: npt.NDArray[np.float32]

    def proposals(self) -> list[Proposal]:
        """A proposal of each mask, with the network's score for its predicted IoU."""
        return [
            Proposal(logits, float(score), 1.0)
            for logits, score in zip(self.logits, self.scores, strict=True)
            if (logits > 0).any()
        ]
