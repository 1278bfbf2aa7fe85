"""Pixels of a session for the page: frames, masks over them, confidence over time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.exports.edges import Edges
from maskstream.pipeline.results.edits import add_object, keep_objects
from maskstream.pipeline.results.review import review_of
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.tracking.compositor import covered_part
from maskstream.pipeline.types import CoveredPart, FrameResult, ObjectResult
from maskstream.ui.editing.clicker import BoolMap
from maskstream.ui.editing.confidence_strips import confidence_strips
from maskstream.ui.editing.final_masks import FinalMasks
from maskstream.ui.editing.images import cutout, fit_within, jpeg, shrink_labels
from maskstream.ui.editing.session import Session
from maskstream.ui.editing.session_json import Timeline
from maskstream.ui.editing.track_plan import stale_segments

_WHOLE = (slice(0, None), slice(0, None))


@dataclass(frozen=True, slots=True)
class _OpenedStore:
    """An open mask store, with its rows by frame index."""

    place: Path
    store: MaskStore
    rows: dict[int, int]

    @classmethod
    def at(cls, place: Path) -> _OpenedStore:
        store = MaskStore(place)
        return cls(place, store, {int(number): row for row, number in enumerate(store.indices)})

    def frame(self, index: int) -> FrameResult | None:
        return self.store.frame(self.rows[index]) if index in self.rows else None


@dataclass(frozen=True, slots=True)
class Layers:
    """Masks of a frame as the page gets them.

    labels: uint8 [h, w], the object on top, 0: none. covered: parts of objects under others.
    """

    labels: npt.NDArray[np.uint8]
    covered: Sequence[CoveredPart]
    objects: Sequence[ObjectResult]


class ShownMasks:
    """Renders the pixels of a session in its current state.

    lock: held while the session is changed. live: returns the running job's result for a frame.
    """

    def __init__(
        self,
        session: Session,
        video: Seekable,
        lock: threading.RLock,
        live: Callable[[int], FrameResult | None],
    ) -> None:
        self._session = session
        self._video = video
        self._info = video.info
        self._lock = lock
        self._live = live
        self._opened: _OpenedStore | None = None
        self._timeline: tuple[Path | None, Timeline] | None = None

    def image(self, index: int, longest: int) -> bytes:
        """Encode a frame as JPEG, longer side at most `longest`. Raises `SourceError`."""
        return jpeg(self._video.frame(index), longest)

    def cutout(self, index: int, objects: Collection[int], edges: Edges, longest: int) -> bytes:
        """Cut objects out of a frame; encode as RGBA PNG. Raises `SourceError`."""
        frame, result = self._video.frame(index), self.result(index)
        own = self.final_masks().object_edges
        mattes = []
        if result is not None:
            masks = {object_id: result.mask(object_id) for object_id in objects}
            mattes = [(mask, own.get(object_id, edges)) for object_id, mask in masks.items()]
        return cutout(frame, mattes, longest)

    def layers(self, index: int, longest: int) -> Layers:
        """Masks of a frame, its longer side at most `longest`."""
        result = self.result(index)
        if result is None:
            return Layers(np.zeros(fit_within(self._info.size_hw, longest), np.uint8), (), ())
        labels = shrink_labels(result.labels, longest)
        covered = []
        for part in result.covered:
            whole = shrink_labels(result.mask(part.object_id), longest)
            under = (whole > 0) & (labels != part.object_id)
            if under.any():
                covered.append(covered_part(part.object_id, _WHOLE, under))
        return Layers(labels, tuple(covered), result.objects)

    def result(self, index: int) -> FrameResult | None:
        """Masks of a frame: tracked ones, overlaid with the prompted masks of that frame."""
        with self._lock:
            return self.final_masks().at(index, self._with_live(index, self._tracked(index)))

    def final_masks(self) -> FinalMasks:
        """The masks as they are now, for exports."""
        with self._lock:
            state = self._session.tracked_state
            stale = stale_segments(state, self._video.numbers)
            return FinalMasks.of(state, stale, self._info, self._session.masks)

    def mask(self, index: int, object_id: int) -> BoolMap | None:
        """The visible mask of an object on a frame, bool [H, W], if there is one."""
        result = self.result(index)
        mask = None if result is None else result.mask(object_id)
        return mask if mask is not None and mask.any() else None

    def timeline(self, bins: int) -> Timeline:
        """Confidence of every object over time, and the review items."""
        with self._lock:
            place = self._session.store
            if self._timeline is not None and self._timeline[0] == place:
                return self._timeline[1]
            if place is None:
                timeline = Timeline({}, ())
            else:
                store = MaskStore(place)
                strips = confidence_strips(store.frame_objects(), self._video.numbers, bins)
                timeline = Timeline(strips, tuple(review_of(store)))
            self._timeline = place, timeline
            return timeline

    def _tracked(self, index: int) -> FrameResult | None:
        place = self._session.store
        if place is None:
            return None
        if self._opened is None or self._opened.place != place:
            self._opened = _OpenedStore.at(place)
        return self._opened.frame(index)

    def _with_live(self, index: int, shown: FrameResult | None) -> FrameResult | None:
        """Replace tracked masks of a frame by those of the running job, if it has any."""
        live = self._live(index)
        if live is None or shown is None:
            return shown if live is None else live
        fresh = {found.id for found in live.objects}
        shown = keep_objects(shown, {found.id for found in shown.objects} - fresh)
        for found in live.objects:
            shown = add_object(shown, found, live.mask(found.id))
        return shown
