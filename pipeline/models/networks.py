"""The networks of a stream: a segmenter for prompts, the memory, and the encoder of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.memory.card import read_memory_card
from maskstream.pipeline.memory.model import MemoryModel
from maskstream.pipeline.models.find import EMBEDDED, content_hash, find_model
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.segmenter.model import Features, OpenVinoSegmenter, Segmenter
from maskstream.pipeline.types import Frame, SizeHW

MEMORY = EMBEDDED / "memory"
"""Folder of the embedded memory: its graphs and `memory.yaml`."""


@dataclass(frozen=True, slots=True)
class KeyframeFeatures:
    """Encoder output of a keyframe, for prompts and for the memory; the same if they share it."""

    prompts: Features
    memory: Features


@dataclass(frozen=True, slots=True)
class Networks:
    """What runs on a keyframe, for one frame size.

    The memory reads `encoder`, the embedded one, whichever model answers prompts: what was learned
    and every threshold of recognition hold for its features only. encoder: the segmenter itself
    where that is the embedded model.
    """

    segmenter: Segmenter
    encoder: Segmenter
    memory: MemoryModel

    def encode(self, frame: Frame) -> KeyframeFeatures:
        """Encode a frame, once for each encoder."""
        prompts = self.segmenter.encode(frame)
        if self.encoder is self.segmenter:
            return KeyframeFeatures(prompts, prompts)
        return KeyframeFeatures(prompts, self.encoder.encode(frame))


def open_networks(
    config: PipelineConfig,
    model: Path,
    frame_hw: SizeHW,
    *,
    input_share: float = 1.0,
    memory: MemoryModel | None = None,
) -> Networks:
    """Open the networks of a stream.

    model, input_share: as in `open_segmenter`. memory: one that is open already. Raises
    `ModelError`.
    """
    threads = config.threads.inference
    segmenter = open_segmenter(config, model, frame_hw, input_share=input_share)
    card = read_memory_card(MEMORY)
    encoder = segmenter
    if not model.is_dir() or content_hash(model) != card.encoder_hash:
        folder = find_model(card.encoder)
        encoder = OpenVinoSegmenter(folder, frame_hw, threads=threads, input_share=input_share)
    return Networks(segmenter, encoder, memory or MemoryModel(MEMORY, threads=threads))
