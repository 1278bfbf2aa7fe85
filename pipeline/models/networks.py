"""The networks of a stream: a segmenter for prompts, the embedded one for tracks, the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.memory.card import read_memory_card
from maskstream.pipeline.memory.model import MemoryModel
from maskstream.pipeline.models.find import MEMORY, content_hash, find_model
from maskstream.pipeline.models.head import open_seeding_head
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.objectness.model import ObjectnessModel
from maskstream.pipeline.segmenter.model import Features, OpenVinoSegmenter, Segmenter
from maskstream.pipeline.segmenter.proposals import ScoredBoxes
from maskstream.pipeline.types import Frame, SizeHW


class KeyframeFeatures:
    """Encoder output of a keyframe.

    tracks: features of the embedded encoder, for the memory and for decoding tracks. The segmenter
    of prompts, if it is another one, encodes the frame when `prompts` is first called. detections:
    of a detector that ran on the frame, None if none did.
    """

    def __init__(self, tracks: Features, encode_prompts: Callable[[], Features]) -> None:
        self.tracks = tracks
        self.detections: Sequence[DetectedBox] | None = None
        self._encode_prompts = encode_prompts
        self._prompts: Features | None = None

    def prompts(self) -> Features:
        """Features for prompts and seeding."""
        if self._prompts is None:
            self._prompts = self._encode_prompts()
        return self._prompts


@dataclass(frozen=True, slots=True)
class Networks:
    """What runs on a keyframe, for one frame size.

    segmenter: answers prompts and finds objects to seed. tracks: the embedded model, whose features
    the memory reads and whose decoder refines tracks, whichever model answers prompts: what was
    learned and every threshold of tracking hold for it only. They are one if the embedded model
    answers prompts. objectness: proposes boxes to seed, from the embedded model's features; None:
    seeding prompts with a grid of points.
    """

    segmenter: Segmenter
    tracks: Segmenter
    memory: MemoryModel
    objectness: ObjectnessModel | None = None

    def encode(self, frame: Frame) -> KeyframeFeatures:
        """Encode a frame for tracks now, and for prompts when that is needed."""
        features = self.tracks.encode(frame)
        if self.tracks is self.segmenter:
            return KeyframeFeatures(features, lambda: features)
        return KeyframeFeatures(features, lambda: self.segmenter.encode(frame))

    def boxes(self, features: KeyframeFeatures) -> ScoredBoxes | None:
        """Boxes of possible objects, best first; None without `objectness`."""
        if self.objectness is None:
            return None
        return self.objectness.propose(features.tracks, self.tracks.geometry)


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
    tracks = segmenter
    if not model.is_dir() or content_hash(model) != card.encoder_hash:
        folder = find_model(card.encoder)
        tracks = OpenVinoSegmenter(folder, frame_hw, threads=threads, input_share=input_share)
    return Networks(
        segmenter, tracks, memory or MemoryModel(MEMORY, threads=threads), open_seeding_head(config)
    )
