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
    MemoryReadout,
    resolve_overlaps,
)
from maskstream.trackers.track import LOGIT_LIMIT, Detection, Track
from maskstream.trackers.tracker import Tracker

MAX_CELLS = 64  # along the long side; the work of reading grows with the fourth power


def appearance_settings(config: PipelineConfig) -> AppearanceSettings:
    """What a configuration says of the memory."""
    given = config.appearance
    return AppearanceSettings(given.recent, given.recent_interval_s, given.references)


class Recognizer:
    """Learns what objects look like on one keyframe and finds them on others.

    working_hw: size of the grid on which masks are given and taken.
    """

    def __init__(
        self, geometry: InputGeometry, working_hw: SizeHW, settings: AppearanceSettings
    ) -> None:
        self.memory = AppearanceMemory(settings)
        self._working_hw = working_hw
        self._set(geometry)

    def _set(self, geometry: InputGeometry) -> None:
        self._geometry = geometry
        stride = -(-max(geometry.grid_hw) // MAX_CELLS)
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

    def add_reference(self, object_id: int, cells: CellFeatures, mask: FloatMap) -> None:
        """Remember an object for good; mask: logits at the working resolution."""
        self.memory.add_reference(object_id, cells, self._coverage(mask))

    def add_recent(
        self, object_id: int, cells: CellFeatures, readout: MemoryReadout, now_s: float
    ) -> None:
        """Remember an object for a few keyframes."""
        self.memory.add_recent(object_id, cells, readout.coverage, now_s)

    def read(self, object_id: int, cells: CellFeatures, around: FloatMap | None) -> MemoryReadout:
        """Look for an object near a mask (logits at the working resolution; None: anywhere)."""
        near = None if around is None else self._coverage(around)
        return self.memory.read(object_id, cells, near)

    def logits(self, readout: MemoryReadout) -> FloatMap:
        """A reading as logits at the working resolution."""
        h, w = self._geometry.grid_hw
        fine = cv2.resize(readout.coverage, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._geometry.to_size((2 * fine - 1) * LOGIT_LIMIT, self._working_hw)

    def keep_only(self, kept: Iterable[int]) -> None:
        """Forget all objects but these."""
        self.memory.forget(kept)

    def _coverage(self, logits: FloatMap) -> FloatMap:
        """Share of every cell that a mask at the working resolution covers."""
        share = np.clip(self._geometry.from_size(logits) / 2 + 0.5, 0, 1)
        cells = self._cells_hw[::-1]
        return np.asarray(cv2.resize(share, cells, interpolation=cv2.INTER_AREA), np.float32)


class TrackRecognition:
    """Recognizes the tracks of one tracker on keyframes; searches those that are out of sight.

    max_searches: objects that one keyframe searches in the whole image.
    """

    def __init__(self, tracker: Tracker, max_searches: int) -> None:
        self._tracker = tracker
        self._max_searches = max_searches
        self._cursor = 0

    def recognize(
        self, recognizer: Recognizer, due: Sequence[Track], cells: CellFeatures, now_s: float
    ) -> list[Track]:
        """Propose a mask for remembered tracks, or mark them occluded; search for absent ones.

        Returns the tracks that are alive, and those that were found again.
        """
        readouts: dict[int, MemoryReadout] = {}
        searches = self._max_searches
        for track in due:
            if not (recognizer.knows(track.id) and track.mask.any()):
                continue
            readout = recognizer.read(track.id, cells, track.logits)
            recognized = self._recognizes(recognizer, track, readout)
            if searches > 0 and not recognized:
                searches -= 1
                readout = recognizer.read(track.id, cells, None)
                recognized = self._recognizes(recognizer, track, readout)
            if recognized:
                readouts[track.id] = readout
            else:
                self._tracker.mark_occluded(track)
        readouts = resolve_overlaps(readouts)
        visible = list(readouts.values())
        seen = [track for track in due if track.alive]
        for track in self._next_searches(recognizer, searches):
            readout = recognizer.read(track.id, cells, None)
            free = readout.without_claimed(visible)
            mostly_free = free.size > 0.5 * readout.size
            if mostly_free and self._recognizes(recognizer, track, free):
                readouts[track.id] = free
                seen.append(track)
        for object_id, readout in readouts.items():
            known = self._tracker.find(object_id)
            logits = recognizer.logits(readout)
            if known is not None and self._tracker.apply_recognition(
                known, logits, readout.affinity, now_s
            ):
                recognizer.add_recent(object_id, cells, readout, now_s)
        return seen

    def similarity(
        self, recognizer: Recognizer, cells: CellFeatures
    ) -> Callable[[Track, Detection], bool]:
        """Whether a detection may be a track's object; so it may if nothing is remembered."""

        def alike(track: Track, seen: Detection) -> bool:
            if not recognizer.knows(track.id):
                return True
            readout = recognizer.read(track.id, cells, seen.logits)
            return self._recognizes(recognizer, track, readout)

        return alike

    def remember(self, recognizer: Recognizer, cells: CellFeatures, prompted: set[int]) -> None:
        """Remember what a person gave on this keyframe and what has just got an identity."""
        known = [t for t in self._tracker.tracks if t.id > 0]
        for track in known:
            new = not recognizer.knows(track.id)
            if track.visible and track.mask.any() and (new or track.id in prompted):
                recognizer.add_reference(track.id, cells, track.logits)
        recognizer.keep_only(track.id for track in known)

    def _next_searches(self, recognizer: Recognizer, limit: int) -> list[Track]:
        """The occluded or lost tracks that this keyframe searches: a few, all in turn."""
        absent = [t for t in self._tracker.occluded_or_lost() if recognizer.knows(t.id)]
        chosen, self._cursor = round_robin(absent, limit, self._cursor)
        return chosen

    def _recognizes(self, recognizer: Recognizer, track: Track, readout: MemoryReadout) -> bool:
        return self._tracker.recognizes(track, recognizer.logits(readout), readout.affinity)
