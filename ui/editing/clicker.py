"""Answers clicks with masks on one frame; embeddings are cached so that this is fast."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import ChosenDetections, DetectedBox
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.head import open_head_of
from maskstream.pipeline.models.open import locate_model, open_segmenter
from maskstream.pipeline.models.predictor import single_prompt
from maskstream.pipeline.objectness.model import ObjectnessModel
from maskstream.pipeline.segmenter.corrections import Correction, correct_mask
from maskstream.pipeline.segmenter.model import Decoded, Features, PromptBatch, Segmenter
from maskstream.pipeline.tracking.detecting import distinct_masks
from maskstream.pipeline.tracking.seeding import Seeder
from maskstream.pipeline.types import Frame, RgbImage, SizeHW
from maskstream.ui.editing.entries import Click

BoolMap = npt.NDArray[np.bool_]

SIZES_KEPT = 4
FRAMES_KEPT = 12  # encoded frames, about 3 MB each with `lite`
_MAX_PROPOSALS = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """Masks that answer a prompt, best first.

    masks: bool [K, H, W]; scores: [K], 0..1.
    """

    masks: npt.NDArray[np.bool_]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An encoded frame. rgb: the image that was encoded, [h, w, 3]."""

    features: Features
    rgb: RgbImage


@dataclass(frozen=True, slots=True)
class Found:
    """A proposal of everything mode or of a detector.

    mask: bool [H, W]; score: 0..1, the detector's if it is from one. label: its class, "": unknown.
    """

    mask: BoolMap
    score: float
    label: str = ""


class SharedDetector:
    """The detector of Find, asked by one session at a time."""

    def __init__(self, detector: ChosenDetections) -> None:
        self._detector = detector
        self._lock = threading.Lock()

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """The wanted detections of a frame, the best first. Raises `DetectorError`."""
        with self._lock:
            self._detector.check(frame.size_hw)
            return self._detector.detect(frame)[:_MAX_PROPOSALS]


class Segmenters:
    """Loaded segmenters by frame size, shared by all sessions because loading takes seconds.

    detector: finds objects instead of everything mode, if there is one.
    """

    def __init__(self, config: PipelineConfig, detector: SharedDetector | None = None) -> None:
        self.config = config
        self.detector = detector
        self._lock = threading.Lock()
        self._head: list[ObjectnessModel | None] = []  # once it has been looked for
        self._loaded: OrderedDict[SizeHW, tuple[Segmenter, threading.Lock]] = OrderedDict()

    def head(self) -> ObjectnessModel | None:
        """The objectness head; None if seeding asks a grid, or if it cannot read the model."""
        with self._lock:
            if self.config.seeding.proposals == "head" and not self._head:
                self._head = [open_head_of(locate_model(self.config))]
            return self._head[0] if self._head else None

    def loaded(self, frame_hw: SizeHW) -> Segmenter | None:
        """The segmenter for a frame size, if it has been loaded."""
        with self._lock:
            return self._loaded[frame_hw][0] if frame_hw in self._loaded else None

    def of_size(self, frame_hw: SizeHW) -> tuple[Segmenter, threading.Lock]:
        """The segmenter for a frame size, and the lock that guards it. Raises `ModelError`."""
        with self._lock:
            if frame_hw not in self._loaded:
                model = locate_model(self.config)
                segmenter = open_segmenter(self.config, model, frame_hw)
                self._loaded[frame_hw] = segmenter, threading.Lock()
                while len(self._loaded) > SIZES_KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(frame_hw)
            return self._loaded[frame_hw]


class _SharedSegmenter:
    """A segmenter that is locked per batch, so that clicks need not wait for everything mode."""

    def __init__(self, segmenter: Segmenter, lock: threading.Lock) -> None:
        self.geometry = segmenter.geometry
        self.card = segmenter.card
        self._segmenter = segmenter
        self._lock = lock

    def encode(self, frame: Frame) -> Features:
        with self._lock:
            return self._segmenter.encode(frame)

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        with self._lock:
            return self._segmenter.decode(features, prompts)


class Clicker:
    """Answers prompts on the frames of one video; may be called by any thread.

    Raises `ModelError` on first use if the model cannot be loaded.
    """

    def __init__(self, segmenters: Segmenters, frame_hw: SizeHW) -> None:
        self._segmenters = segmenters
        self._frame_hw = frame_hw
        self._searching = threading.Lock()
        self._frames: OrderedDict[int, _Encoded] = OrderedDict()
        self._proposals: OrderedDict[int, list[Found]] = OrderedDict()

    def loaded(self) -> Segmenter | None:
        """The segmenter, if it has been loaded."""
        return self._segmenters.loaded(self._frame_hw)

    def prepare(self, frame: Frame) -> None:
        """Encode a frame before the first click on it."""
        with self._segmenter() as segmenter:
            self._encoded(segmenter, frame)

    def answer(
        self, frame: Frame, clicks: Sequence[Click], box_xyxy: Sequence[float] | None
    ) -> Answer:
        """Decode masks for clicks and a box. A single click is ambiguous and gives three masks.

        Raises `PromptError`.
        """
        with self._segmenter() as segmenter:
            return self._answer(segmenter, self._encoded(segmenter, frame), clicks, box_xyxy)

    def correct(self, frame: Frame, correction: Correction) -> BoolMap:
        """Correct a mask by a click: the new mask, bool [H, W]."""
        with self._segmenter() as segmenter:
            return _corrected(segmenter, self._encoded(segmenter, frame), correction)

    def preview(self, frame: int, prompt: Click | Correction) -> BoolMap | None:
        """The best mask of `answer` to one click, or that of `correct`, without waiting.

        None if the frame is not encoded, or the segmenter is busy. Raises `PromptError`.
        """
        encoded = self._frames.get(frame)
        if encoded is None:
            return None
        segmenter, lock = self._segmenters.of_size(self._frame_hw)
        if not lock.acquire(blocking=False):
            return None
        try:
            if isinstance(prompt, Correction):
                return _corrected(segmenter, encoded, prompt)
            return np.asarray(self._answer(segmenter, encoded, (prompt,), None).masks[0])
        finally:
            lock.release()

    def _answer(
        self,
        segmenter: Segmenter,
        encoded: _Encoded,
        clicks: Sequence[Click],
        box_xyxy: Sequence[float] | None,
    ) -> Answer:
        if box_xyxy is None and not any(c.label for c in clicks):
            raise PromptError("Click on the object first, then on what does not belong to it.")
        points = [(c.x, c.y) for c in clicks] or None
        labels = [c.label for c in clicks] or None
        prompt = single_prompt(self._frame_hw, points, labels, box_xyxy)
        decoded = segmenter.decode(encoded.features, prompt)
        ambiguous = box_xyxy is None and len(clicks) == 1
        chosen = 1 + np.argsort(-decoded.iou[0, 1:]) if ambiguous else np.array([0])
        to_size = segmenter.geometry.to_size
        masks = [to_size(decoded.masks[0, i], self._frame_hw) > 0 for i in chosen]
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        if not kept:
            raise PromptError(
                "No object was found there; click nearer to the middle, or draw a box around it."
            )
        scores = tuple(float(decoded.iou[0, chosen[i]]) for i in kept)
        return Answer(np.stack([masks[i] for i in kept]), scores)

    def proposals(self, frame: Frame) -> list[Found]:
        """Find objects on a frame by the detector or everything mode, the largest first.

        Raises `DetectorError`.
        """
        with self._searching:
            if frame.index not in self._proposals:
                segmenter = _SharedSegmenter(*self._segmenters.of_size(self._frame_hw))
                found = self._found(segmenter, frame)
                self._proposals[frame.index] = sorted(found, key=lambda m: -int(m.mask.sum()))
                while len(self._proposals) > FRAMES_KEPT:
                    self._proposals.popitem(last=False)
            return self._proposals[frame.index]

    def _found(self, segmenter: Segmenter, frame: Frame) -> list[Found]:
        with self._segmenter() as held:
            features = self._encoded(held, frame).features
        detector = self._segmenters.detector
        if detector is None:
            return self._seeded(segmenter, features)
        found = distinct_masks(segmenter, features, detector.detect(frame), self._frame_hw)
        return [Found(d.mask.logits > 0, d.score, d.label) for d in found]

    def _seeded(self, segmenter: Segmenter, features: Features) -> list[Found]:
        head = self._segmenters.head()
        boxes = None if head is None else head.propose(features, segmenter.geometry)
        nothing = np.zeros(segmenter.geometry.grid_hw, np.bool_)
        seeder = Seeder(segmenter, self._segmenters.config.seeding)
        found = seeder.propose_after_cut(features, nothing, _MAX_PROPOSALS, boxes)
        masks = [
            Found(segmenter.geometry.to_size(p.logits, self._frame_hw) > 0, p.score) for p in found
        ]
        return [m for m in masks if m.mask.any()]

    @contextmanager
    def _segmenter(self) -> Iterator[Segmenter]:
        segmenter, lock = self._segmenters.of_size(self._frame_hw)
        with lock:
            yield segmenter

    def _encoded(self, segmenter: Segmenter, frame: Frame) -> _Encoded:
        if frame.index not in self._frames:
            rgb = frame.rgb(segmenter.geometry.valid_hw)
            self._frames[frame.index] = _Encoded(segmenter.encode(frame), rgb)
            while len(self._frames) > FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(frame.index)
        return self._frames[frame.index]


def _corrected(segmenter: Segmenter, encoded: _Encoded, correction: Correction) -> BoolMap:
    """The corrected mask. Raises `PromptError` if it is empty."""
    mask = correct_mask(segmenter, encoded.features, encoded.rgb, correction)
    if not mask.any():
        raise PromptError("Nothing would be left of the mask; delete the object instead.")
    return mask
