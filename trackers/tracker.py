"""Multi-object tracker: propagates masks by flow, corrects them by detections on keyframes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.trackers.assignment import assign, assign_two_stage
from maskstream.trackers.flow import Flow
from maskstream.trackers.iou import box_iou, pairwise_mask_iou
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import LOGIT_LIMIT, BoolMap, Detection, FloatMap, Track, box_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """Thresholds of association and of track states.

    association_iou_min: least mask IoU of a detection with its track. high_score: score from which
    a detection is matched in the first stage.

    lost_after_misses: consecutive misses after which a track is lost. remove_after_s: time until a
    lost seeded track is removed. confirm_hits: hits until a seeded object is shown. occluded_s:
    time after which an occluded object counts as lost. last_id: the greatest id; once it is used,
    no object is added.
    """

    association_iou_min: float = 0.5
    high_score: float = 0.6
    reentry_box_iou_min: float = 0.3
    lost_after_misses: int = 3
    remove_after_s: float = 5.0
    confirm_hits: int = 2
    occluded_s: float = 2.0
    last_id: int = 65535  # label maps have 16 bits


class Tracker:
    """The tracks of one stream, from masks only; it runs no network.

    first_id: least id of seeded objects; ids are never reused.
    """

    def __init__(self, settings: TrackerSettings, first_id: int = 1) -> None:
        self.settings = settings
        self.tracks: list[Track] = []
        self._next_id = first_id

    @property
    def full(self) -> bool:
        """Whether every id is used, so that no object can be added."""
        return self._next_id > self.settings.last_id

    def advance(self, flow: Flow | None, dt_s: float) -> None:
        """Propagate every track to the next frame; without `flow` (after a cut) only boxes move."""
        for track in self.tracks:
            if track.state == TrackState.REENTERED:
                track.state = TrackState.TRACKED
            if flow is None or not track.alive:
                track.motion.predict(dt_s, None if flow is None else flow.camera)
            if track.state == TrackState.OCCLUDED:
                track.need = track.need.waited()
        if flow is not None:
            live = self.live()
            propagated = flow.propagate([t.logits for t in live], [t.points for t in live])
            for track, seen in zip(live, propagated, strict=True):
                track.propagate(seen, flow, dt_s)

    def moved_far(self, share: float) -> list[Track]:
        """Visible tracks that moved more than this share of their size since a keyframe."""
        return [t for t in self.tracks if t.visible and t.traveled > share]

    def need(self, later: int, *, looked_at: bool) -> float:
        """The greatest need of a track `later` frames from now (`Need.expected`).

        looked_at: there is a keyframe on the frame before that one.
        """
        wanting = [t for t in self.tracks if t.alive or t.state == TrackState.OCCLUDED]
        return max((t.need.expected(later, looked_at=looked_at) for t in wanting), default=0.0)

    def mark_all_lost(self, *, keep_confirmed: bool = False) -> None:
        """Mark prompted tracks, and those that a detector supports, lost and drop the others.

        As after a cut. keep_confirmed: keep all tracks that have an id; for a gap within the same
        scene.
        """
        self.tracks = [
            t
            for t in self.tracks
            if t.prompted
            or t.sightings.hits >= self.settings.confirm_hits
            or (keep_confirmed and t.id > 0)
        ]
        for track in self.tracks:
            track.state = TrackState.LOST
            track.motion = KalmanBox.start(np.zeros(4))  # expected nowhere

    def occupied_mask(self, shape: tuple[int, int]) -> BoolMap:
        """Union of the live masks, bool [H, W]."""
        union = np.zeros(shape, np.bool_)
        for track in self.tracks:
            if track.alive:
                union |= track.mask
        return union

    def live(self) -> list[Track]:
        """Tracks whose mask is propagated and checked on keyframes."""
        return [t for t in self.tracks if t.alive]

    def occluded_or_lost(self) -> list[Track]:
        """Tracks whose object is not visible and may reappear."""
        return [t for t in self.tracks if t.state in (TrackState.OCCLUDED, TrackState.LOST)]

    def apply_recognition(self, track: Track, logits: FloatMap, now_s: float) -> None:
        """Take the logits of a track that was recognized; an occluded or lost one reenters."""
        if track.alive:
            track.update_mask(logits)
        else:
            track.replace(logits, track.score, now_s)
            track.state = TrackState.REENTERED
        track.recognized_s = now_s

    def mark_occluded(self, track: Track) -> None:
        """Mark a track occluded: its mask is withheld until the object is found again."""
        if track.alive:
            track.state = TrackState.OCCLUDED

    def associate(
        self, live: Sequence[Track], detections: Sequence[Detection], now_s: float
    ) -> None:
        """Match detections with live tracks by mask IoU (Hungarian).

        live: the tracks that were decoded. Confident detections are matched first.
        """
        for track in live:
            track.traveled = 0.0
        cost = _mask_cost(live, detections)
        sure = np.array([d.score >= self.settings.high_score for d in detections], np.bool_)
        matched = assign_two_stage(cost, 1 - self.settings.association_iou_min, sure)
        for row, column in matched.pairs:
            agreement = 1 - float(cost[row, column])
            live[row].update(detections[column], agreement, now_s)
            self.confirm(live[row])
        for row in matched.unmatched_tracks:
            if live[row].recognized_s < now_s:
                self._missed(live[row])
        self._forget(now_s)

    def admit(
        self,
        detections: Sequence[Detection],
        now_s: float,
        *,
        confirmed: bool,
        looks_alike: Callable[[Track, Detection], bool] = lambda *_: True,
    ) -> None:
        """Add objects that were found without a prompt.

        They are first matched with lost tracks by the expected box, if they pass `looks_alike`; the
        others become new tracks, shown at once if `confirmed`, else after `confirm_hits` keyframes.
        """
        for detection in self._match_lost(detections, now_s, looks_alike):
            self.confirm(self.begin(detection, now_s), at_once=confirmed)
        self.drop_removed()

    def begin(self, detection: Detection, now_s: float) -> Track:
        """Begin the track of a new object, which is not shown until it is confirmed."""
        track = _track(0, detection, now_s, prompted=False)
        self.tracks.append(track)
        return track

    def set(self, track_id: int, logits: FloatMap, score: float, now_s: float) -> None:
        """Set the mask of a prompted object; creates its track if it is new."""
        track = self.find(track_id)
        if track is None:
            self.tracks.append(_track(track_id, Detection(logits, score), now_s, prompted=True))
            self._reserve_id(track_id)
            return
        track.replace(logits, score, now_s)
        track.state = TrackState.TRACKED
        track.prompted = True

    def drop_removed(self) -> None:
        """Drop tracks that were removed since the last keyframe."""
        self.tracks = [t for t in self.tracks if t.state != TrackState.REMOVED]

    def remove(self, track_id: int) -> None:
        """Remove an object's track."""
        self.tracks = [t for t in self.tracks if t.id != track_id]

    def find(self, track_id: int) -> Track | None:
        """The track with an id, if there is one."""
        return next((t for t in self.tracks if t.id == track_id), None)

    def new_id(self) -> int:
        """An unused id; there is one unless the tracker is `full`."""
        taken = self._next_id
        self._reserve_id(taken)
        return taken

    def _reserve_id(self, track_id: int) -> None:
        left = not self.full
        self._next_id = max(self._next_id, track_id + 1)
        if left and self.full:
            logger.warning("all %d ids are used; no more objects are added", track_id)

    def confirm(self, track: Track, *, at_once: bool = False) -> None:
        """Show a tentative track, `at_once` or if it was found often enough.

        What a detector has found counts by the detector's hits. Without an id that is left, the
        track is removed.
        """
        if track.state != TrackState.TENTATIVE:
            return
        hits = track.sightings.hits or track.hits
        if self.full:
            track.state = TrackState.REMOVED
        elif at_once or hits >= self.settings.confirm_hits:
            track.id = self.new_id()
            track.state = TrackState.TRACKED

    def _missed(self, track: Track) -> None:
        track.mark_missed()
        not_found = track.misses >= self.settings.lost_after_misses or not track.mask.any()
        if track.state == TrackState.TENTATIVE:
            track.state = TrackState.REMOVED
        elif not_found:
            track.state = TrackState.LOST

    def _match_lost(
        self,
        detections: Sequence[Detection],
        now_s: float,
        looks_alike: Callable[[Track, Detection], bool],
    ) -> list[Detection]:
        """Match lost tracks with detections at their expected boxes; returns unmatched ones."""
        lost = self.occluded_or_lost()
        boxes = [box_of(d.logits > 0) for d in detections]
        expected = np.array([t.motion.box_xyxy for t in lost]).reshape(-1, 4)
        seen = np.array([np.zeros(4) if b is None else b for b in boxes]).reshape(-1, 4)
        cost, cost_max = 1 - box_iou(expected, seen), 1 - self.settings.reentry_box_iou_min
        for row, column in np.argwhere(cost <= cost_max):
            if not looks_alike(lost[row], detections[column]):
                cost[row, column] = np.inf
        joined = assign(cost, cost_max)
        for row, column in joined.pairs:
            lost[row].replace(detections[column].logits, detections[column].score, now_s)
            lost[row].state = TrackState.REENTERED
        return [detections[i] for i in joined.unmatched_detections]

    def _forget(self, now_s: float) -> None:
        limit = self.settings.remove_after_s

        for track in self.tracks:
            if (
                track.state == TrackState.OCCLUDED
                and now_s - track.seen_s > self.settings.occluded_s
            ):
                track.state = TrackState.LOST

        def over(track: Track) -> bool:
            expired = track.state == TrackState.LOST and now_s - track.seen_s > limit
            return track.state == TrackState.REMOVED or (expired and not track.prompted)

        self.tracks = [t for t in self.tracks if not over(t)]


def _track(track_id: int, detection: Detection, now_s: float, *, prompted: bool) -> Track:
    logits = np.clip(detection.logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    box = box_of(logits > 0)
    motion = KalmanBox.start(np.zeros(4) if box is None else box)
    state = TrackState.TRACKED if prompted else TrackState.TENTATIVE
    return Track(track_id, logits, motion, detection.score, state, prompted, now_s)


def _mask_cost(tracks: Sequence[Track], detections: Sequence[Detection]) -> np.ndarray:
    """1 - mask IoU, [tracks, detections]."""
    if not tracks or not detections:
        return np.zeros((len(tracks), len(detections)))
    masks = np.stack([t.mask for t in tracks])
    found = np.stack([d.logits > 0 for d in detections])
    return 1 - pairwise_mask_iou(masks, found)
