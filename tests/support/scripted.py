"""A segmenter that answers as a test says."""

from dataclasses import dataclass, field

import numpy as np

from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.model import Decoded, Features, ModelCard, PromptBatch

CARD = ModelCard(name="scripted", long_side=64, multiple=32, pad_rgb=(0, 0, 0), method="none")


@dataclass
class Scripted:
    """Answers any prompt with the same four masks and remembers what it was asked."""

    masks: np.ndarray
    geometry: InputGeometry
    card: ModelCard = CARD
    asked: list[PromptBatch] = field(default_factory=list)

    def encode(self, frame) -> Features:
        return Features({})

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        self.asked.append(prompts)
        masks = np.repeat(self.masks[None], len(prompts), 0)
        iou = np.tile(np.array([0.1, 0.3, 0.9, 0.2], np.float32), (len(prompts), 1))
        return Decoded(masks, iou)
