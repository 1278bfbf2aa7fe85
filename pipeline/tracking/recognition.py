"""The appearance memory between the encoder's features and the grid that tracks live on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy

import cv2
import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.tracking.steps import round_robin
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.appearance import (
    AppearanceMemory,
    AppearanceSettings,
    CellFeatures,
    Reading,
    settle,
)
from maskstream.trackers.track import LOGIT_LIMIT, Detection, Track
from maskstream.trackers.tracker import Tracker

MOST_CELLS = 64  # along the long side; the work of reading grows with the fourth power


def appearance_settings(config: PipelineConfig) -> AppearanceSettings:
    """What a configuration says of the memory."""
    given = config.appearance
    return AppearanceSettings(given.recent, given.recent_every_s, given.references)


class Recognizer:
    """Learns what objects look like on one keyframe and finds them on others.

    work_hw: size of the grid on which masks are given and taken.
    """

    def __init__(
        self, geometry: InputGeometry, work_hw: SizeHW, settings: AppearanceSettings
    ) -> None:
        self.memory = AppearanceMemory(settings)
        self._work_hw = work_hw
        self._set(geometry)

    def _set(self, geometry: InputGeometry) -> None:
        self._geometry = geometry
        stride = -(-max(geometry.grid_hw) // MOST_CELLS)
        height, width = geometry.grid_hw
        self._cells_hw = (height // stride, width // stride)

    def at(self, geometry: InputGeometry) -> Recognizer:
        """The same, with the same memory, for another size of the encoder's input."""
        other = copy(self)
        other._set(geometry)
        return other

    def cells(self, features: Features) -> CellFeatures:
        """A keyframe's features by cell."""
        maps = (features.tensors[name][0] for name in ("features_s8", "features_s16"))
        return CellFeatures.of(maps, self._cells_hw)

    def knows(self, object_id: int) -> bool:
        """Whether an object is remembered."""
        return object_id in self.memory

    def learn(self, object_id: int, cells: CellFeatures, mask: FloatMap) -> None:
        """Remember an object for good; mask: logits on the work grid."""
        self.memory.learn(object_id, cells, self._coverage(mask))

    def follow(self, object_id: int, cells: CellFeatures, reading: Reading, now_s: float) -> None:
        """Remember an object for a few keyframes."""
        self.memory.follow(object_id, cells, reading.coverage, now_s)

    def read(self, object_id: int, cells: CellFeatures, around: FloatMap | None) -> Reading:
        """Look for an object near a mask (logits on the work grid; None: anywhere)."""
        near = None if around is None else self._coverage(around)
        return self.memory.read(object_id, cells, near)

    def logits(self, reading: Reading) -> FloatMap:
        """A reading as logits on the work grid."""
        h, w = self._geometry.grid_hw
        fine = cv2.resize(reading.coverage, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._geometry.to_size((2 * fine - 1) * LOGIT_LIMIT, self._work_hw)

    def forget_others(self, kept: Iterable[int]) -> None:
        """Forget all objects but these."""
        self.memory.forget(kept)

    def _coverage(self, logits: FloatMap) -> FloatMap:
        """Share of every cell that a mask on the work grid covers."""
        share = np.clip(self._geometry.from_size(logits) / 2 + 0.5, 0, 1)
        cells = self._cells_hw[::-1]
        return np.asarray(cv2.resize(share, cells, interpolation=cv2.INTER_AREA), np.float32)


class TrackRecognition:
    """Recognizes the tracks of one tracker on keyframes; looks for those that are out of sight.

    max_searches: objects that one keyframe looks for in the whole image.
    """

    def __init__(self, tracker: Tracker, max_searches: int) -> None:
        self._tracker = tracker
        self._max_searches = max_searches
        self._cursor = 0

    def recognize(
        self, recognizer: Recognizer, due: Sequence[Track], cells: CellFeatures, now_s: float
    ) -> list[Track]:
        """Propose a mask for tracks that are remembered, or hide them; look for the hidden.

        Gives those that live, and hidden ones that were found.
        """
        readings: dict[int, Reading] = {}
        searches = self._max_searches
        for track in due:
            if not (recognizer.knows(track.id) and track.mask.any()):
                continue
            reading = recognizer.read(track.id, cells, track.logits)
            recognized = self._recognizes(recognizer, track, reading)
            if searches > 0 and not recognized:
                searches -= 1
                reading = recognizer.read(track.id, cells, None)
                recognized = self._recognizes(recognizer, track, reading)
            if recognized:
                readings[track.id] = reading
            else:
                self._tracker.hide(track)
        readings = settle(readings)
        visible = list(readings.values())
        seen = [track for track in due if track.alive]
        for track in self._next_searches(recognizer, searches):
            reading = recognizer.read(track.id, cells, None)
            free = reading.outside(visible)
            mostly_free = free.size > 0.5 * reading.size
            if mostly_free and self._recognizes(recognizer, track, free):
                readings[track.id] = free
                seen.append(track)
        for object_id, reading in readings.items():
            known = self._tracker.find(object_id)
            logits = recognizer.logits(reading)
            if known is not None and self._tracker.recognised(
                known, logits, reading.affinity, now_s
            ):
                recognizer.follow(object_id, cells, reading, now_s)
        return seen

    def likeness(
        self, recognizer: Recognizer, cells: CellFeatures
    ) -> Callable[[Track, Detection], bool]:
        """Whether a detection may be a track's object; so it may if nothing is remembered."""

        def alike(track: Track, seen: Detection) -> bool:
            if not recognizer.knows(track.id):
                return True
            reading = recognizer.read(track.id, cells, seen.logits)
            return self._recognizes(recognizer, track, reading)

        return alike

    def learn(self, recognizer: Recognizer, cells: CellFeatures, prompted: set[int]) -> None:
        """Remember what a person gave on this keyframe and what has just got an identity."""
        known = [t for t in self._tracker.tracks if t.id > 0]
        for track in known:
            new = not recognizer.knows(track.id)
            if track.visible and track.mask.any() and (new or track.id in prompted):
                recognizer.learn(track.id, cells, track.logits)
        recognizer.forget_others(track.id for track in known)

    def _next_searches(self, recognizer: Recognizer, limit: int) -> list[Track]:
        """The hidden tracks that this keyframe looks for: a few, all in turn."""
        hidden = [t for t in self._tracker.hidden() if recognizer.knows(t.id)]
        chosen, self._cursor = round_robin(hidden, limit, self._cursor)
        return chosen

    def _recognizes(self, recognizer: Recognizer, track: Track, reading: Reading) -> bool:
        return self._tracker.recognises(track, recognizer.logits(reading), reading.affinity)
