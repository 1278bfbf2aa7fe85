"""Recognition of tracks on keyframes: the learned memory predicts all their masks jointly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.memory.bank import (
    RECENT_CELLS,
    REFERENCE_CELLS,
    MemoryBank,
    MemorySettings,
)
from maskstream.pipeline.memory.features import FrameFeatures
from maskstream.pipeline.memory.model import FrameKeys, MemoryModel, sigmoid
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import Features
from maskstream.pipeline.tracking.steps import round_robin
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.assignment import assign
from maskstream.trackers.iou import mask_iou, pairwise_mask_iou
from maskstream.trackers.track import LOGIT_LIMIT, BoolMap, Detection, Track
from maskstream.trackers.tracker import Tracker

PRESENT_MIN = 0.3
"""Presence score from which a tracked object is visible."""
REENTRY_PRESENT_MIN = 0.6
"""Presence score from which an occluded or lost object is found again."""
REENTRY_CERTAINTY_MIN = 0.7
"""Mean probability inside the mask from which an occluded or lost object is found again."""
OWN_IOU_MIN = 0.3
"""IoU of a prediction with its propagated mask below which two objects may have been exchanged."""
PART_REACH = 1.0
"""Distance from the propagated mask, in square roots of its area, within which parts are kept."""
PART_AREA_MIN = 0.3
"""Share of the propagated mask's area below which what is kept is too little, and all is kept."""
SPLIT_REACH = 3.0
"""Distance of a part from where an absent object is expected or was, in square roots of the
part's area, within which the part may be it."""
PART_PX_MIN = 16
"""Area from which a part of one object's mask may be another object, at working resolution."""
ALIKE_IOU_MIN = 0.3
"""IoU of an absent object's prediction with a mask from which that may be the object."""


def memory_settings(config: PipelineConfig) -> MemorySettings:
    """Settings of the memory bank in a configuration."""
    given = config.memory
    return MemorySettings(given.references, given.recent, given.recent_interval_s)


@dataclass(frozen=True, slots=True)
class MemoryGrid:
    """The memory on one size of the encoder's input.

    geometry: of the encoder that the memory reads. working_hw: size of the logits of tracks.
    """

    model: MemoryModel
    geometry: InputGeometry
    working_hw: SizeHW

    def keys_of(self, features: Features) -> FrameKeys:
        """Keys of a keyframe."""
        return self.model.keys_of(FrameFeatures.of(features.tensors))

    def probability(self, logits: FloatMap) -> FloatMap:
        """Probabilities on the grid of logits at the working resolution."""
        return sigmoid(self.geometry.from_size(logits))

    def to_working(self, logits: FloatMap) -> FloatMap:
        """Logits of the grid at the working resolution."""
        return self.geometry.to_size(logits, self.working_hw)


class TrackRecognition:
    """Recognizes the tracks of one tracker on keyframes; searches those that are out of sight.

    max_searches: maximum of occluded or lost objects that one keyframe searches.
    """

    def __init__(self, tracker: Tracker, settings: MemorySettings, max_searches: int) -> None:
        self.bank = MemoryBank(settings)
        self._tracker = tracker
        self._max_searches = max_searches
        self._cursor = 0

    def recognize(
        self, grid: MemoryGrid, due: Sequence[Track], frame: FrameKeys, now_s: float
    ) -> list[Track]:
        """Predict the masks of remembered tracks; mark those that are absent occluded.

        Occluded and lost tracks are predicted too, a few in turn. Returns the tracks that are
        alive, including those that were found again.
        """
        tracked = [t for t in due if t.id in self.bank and t.mask.any()]
        searched = self._next_searches()
        if not (tracked or searched):
            return list(due)
        propagated: dict[int, FloatMap | None] = {
            **{t.id: grid.probability(t.logits) for t in tracked},
            **dict.fromkeys((t.id for t in searched), None),
        }
        predicted = grid.model.predict(frame, self.bank, propagated)
        logits = [grid.to_working(x) for x in predicted.logits]
        masks = dict(zip(propagated, logits, strict=True))
        presence = dict(zip(propagated, predicted.presence.tolist(), strict=True))
        exchanged = _exchanged(tracked, masks)
        masks |= {own: masks[other] for own, other in exchanged.items()}
        presence |= {own: presence[other] for own, other in exchanged.items()}
        for track in tracked:
            masks[track.id] = _without_far_parts(masks[track.id], track.mask)
        shown = [t for t in tracked if presence[t.id] >= PRESENT_MIN and (masks[t.id] > 0).any()]
        vanished = [t for t in tracked if t not in shown]
        recovered = self._recover_from_parts(grid, frame, shown, vanished, masks)
        for track in vanished:
            if track not in recovered:
                self._tracker.mark_occluded(track)
        for track, grid_logits in zip(searched, predicted.logits[len(tracked) :], strict=True):
            certain = presence[track.id] >= REENTRY_PRESENT_MIN and _is_certain(grid_logits)
            if certain and track not in recovered:
                recovered.append(track)
        for track in (*shown, *recovered):
            self._tracker.apply_recognition(track, masks[track.id], now_s)
        return [t for t in due if t.alive] + [t for t in recovered if t not in due]

    def _recover_from_parts(
        self,
        grid: MemoryGrid,
        frame: FrameKeys,
        shown: Sequence[Track],
        vanished: Sequence[Track],
        masks: dict[int, FloatMap],
    ) -> list[Track]:
        """Find absent tracks as separate parts of others' masks, which lose them; changes `masks`.

        Of two similar objects that met, one may take both when they part. Parts are matched with
        the expected positions of absent tracks (Hungarian), whose predictions from their prompted
        frames, without the others, must agree.
        """
        lost = [t for t in self._tracker.occluded_or_lost() if t.id in self.bank]
        absent = [*vanished, *lost]
        if not absent:
            return []
        parts = [(t.id, part) for t in shown for part in _separate_parts(masks[t.id])]
        if not parts:
            return []
        masks_of_parts = [part for _, part in parts]
        expected = _distances([t.motion.value[:2] for t in absent], masks_of_parts)
        last_seen = _distances([_center(t.mask) for t in absent], masks_of_parts)
        cost = np.minimum(expected, last_seen)  # what hides slowly seems to move
        alone = predict_alone(grid, frame, self.bank.references_only())
        recovered = []
        for row, column in assign(cost, SPLIT_REACH).pairs:
            track, (owner, part) = absent[row], parts[column]
            if agrees(*alone(track.id), part):
                masks[track.id] = np.where(part, masks[owner], np.float32(-LOGIT_LIMIT))
                masks[owner] = np.where(part, np.float32(-LOGIT_LIMIT), masks[owner])
                self.bank.forget_recent({track.id, owner})
                recovered.append(track)
        return recovered

    def similarity(self, grid: MemoryGrid, frame: FrameKeys) -> Callable[[Track, Detection], bool]:
        """Whether a detection may be a lost track's object; true if nothing is remembered."""
        alone = predict_alone(grid, frame, self.bank)

        def alike(track: Track, seen: Detection) -> bool:
            return track.id not in self.bank or agrees(*alone(track.id), seen.logits > 0)

        return alike

    def remember(
        self, grid: MemoryGrid, frame: FrameKeys, prompted: set[int], now_s: float
    ) -> None:
        """Remember prompted and new objects for good, and the keyframe for a while."""
        known = {t.id: t for t in self._tracker.tracks if t.id > 0}
        self.bank.keep_only(known)
        shown = {i: t for i, t in known.items() if t.visible and t.mask.any()}
        new = {i for i in shown if i in prompted or i not in self.bank}
        if not shown or not (new or self.bank.wants_recent(now_s)):
            return
        masks = {i: grid.probability(t.logits) for i, t in shown.items()}
        if new:
            reference = grid.model.remember(frame, masks, REFERENCE_CELLS)
            for object_id in masks.keys() - new:
                del reference.values[object_id]
            self.bank.add_reference(reference)
        else:
            absent = np.zeros(frame.s4.shape[-2:], np.float32)
            hidden = [i for i in known if i not in masks and i in self.bank]
            recent = grid.model.remember(frame, masks | dict.fromkeys(hidden, absent), RECENT_CELLS)
            self.bank.add_recent(recent, now_s)

    def _next_searches(self) -> list[Track]:
        """The occluded or lost tracks that this keyframe searches, all in turn."""
        absent = [t for t in self._tracker.occluded_or_lost() if t.id in self.bank]
        chosen, self._cursor = round_robin(absent, self._max_searches, self._cursor)
        return chosen


def predict_alone(
    grid: MemoryGrid, frame: FrameKeys, bank: MemoryBank
) -> Callable[[int], tuple[float, FloatMap]]:
    """Presence and logits of a remembered object, by its id, predicted without others; each once.

    Logits are float32 [H, W] at the working resolution.
    """

    @functools.cache
    def predict(object_id: int) -> tuple[float, FloatMap]:
        predicted = grid.model.predict(frame, bank, {object_id: None})
        return float(predicted.presence[0]), grid.to_working(predicted.logits[0])

    return predict


def agrees(presence: float, logits: FloatMap, mask: BoolMap) -> bool:
    """Whether a prediction says that an object is there, and where a mask is."""
    return presence >= REENTRY_PRESENT_MIN and mask_iou(logits > 0, mask) >= ALIKE_IOU_MIN


def _exchanged(tracks: Sequence[Track], masks: Mapping[int, FloatMap]) -> dict[int, int]:
    """Objects whose identities were exchanged: the id whose prediction is theirs, by their own id.

    Predictions that left their propagated masks are matched with those masks (Hungarian); where the
    matching is a permutation, motion decides.
    """
    if len(tracks) < 2:
        return {}
    before = np.stack([t.mask for t in tracks])
    after = np.stack([masks[t.id] > 0 for t in tracks])
    iou = pairwise_mask_iou(before, after)
    left = np.flatnonzero(np.diag(iou) < OWN_IOU_MIN)
    pairs = assign(1 - iou[np.ix_(left, left)], 1 - OWN_IOU_MIN).pairs
    moved = {int(left[row]): int(left[column]) for row, column in pairs if row != column}
    if set(moved) != set(moved.values()):
        return {}
    return {tracks[row].id: tracks[column].id for row, column in moved.items()}


def _distances(
    centers: Sequence[npt.NDArray[np.float64]], parts: Sequence[BoolMap]
) -> npt.NDArray[np.float64]:
    """Distances of points (x, y) from the centers of parts, in square roots of the parts' areas."""
    middle = np.stack([_center(part) for part in parts])
    sides = np.sqrt([np.count_nonzero(part) for part in parts])
    away = np.linalg.norm(np.stack(centers)[:, None] - middle[None], axis=2)
    return np.asarray(away / sides, np.float64)


def _center(mask: BoolMap) -> npt.NDArray[np.float64]:
    """Center of gravity (x, y) of a mask; far away if it is empty."""
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    if moments["m00"] == 0:
        return np.full(2, np.inf)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


def _separate_parts(logits: FloatMap) -> list[BoolMap]:
    """The parts of a mask, bool [H, W] each, except for the largest."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((logits > 0).view(np.uint8))
    if count <= 2:
        return []
    areas = stats[1:, cv2.CC_STAT_AREA]
    smaller = (i for i in range(count - 1) if i != areas.argmax() and areas[i] >= PART_PX_MIN)
    return [labels == 1 + i for i in smaller]


def _without_far_parts(logits: FloatMap, propagated: BoolMap) -> FloatMap:
    """Remove the parts of a prediction that are far from the propagated mask: similar objects.

    Unless little is left, as when the object has jumped.
    """
    count, labels = cv2.connectedComponents((logits > 0).view(np.uint8), connectivity=8)
    if count <= 2:
        return logits
    area = cv2.countNonZero(propagated.view(np.uint8))
    reach = 1 + round(PART_REACH * float(np.sqrt(area)))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    around = cv2.dilate(propagated.view(np.uint8), kernel).view(np.bool_)
    kept = np.isin(labels, np.setdiff1d(labels[around], [0]))
    if np.count_nonzero(kept) < PART_AREA_MIN * area:
        return logits
    return np.where(kept | (logits <= 0), logits, np.float32(-LOGIT_LIMIT))


def _is_certain(logits: FloatMap) -> bool:
    """Whether there is a mask, and its mean probability is high."""
    inside = logits[logits > 0]
    if inside.size == 0:
        return False
    return float(sigmoid(inside).mean()) >= REENTRY_CERTAINTY_MIN
