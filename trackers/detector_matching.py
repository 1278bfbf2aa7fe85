"""Association of a detector's boxes with tracks: Hungarian, by mask, box, motion, look and class.

It differs from the association of what the segmenter decoded (`Tracker.associate`) in that a
detector misses objects and sees false ones: a track it does not see is followed all the same, and
an object it sees once is not shown yet unless it is sure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.trackers.assignment import assign
from maskstream.trackers.iou import box_iou, pairwise_mask_iou
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Detection, Track, Vector, box_of
from maskstream.trackers.tracker import Tracker

OTHER_CLASS = 0.6
"""Factor of the similarity of a track and a detection of another class."""
PART_SHARE = 0.7
"""Share of a detection's mask on tracks of its class from which it is a part of them."""
UNSURE_MISSES = 3
"""Runs in a row that do not find an object that was found less than `confirm_hits` times, after
which it is dropped: a false detection."""

Similarity = npt.NDArray[np.float64]
LooksAlike = Callable[[Track, Detection], bool]


@dataclass(frozen=True, slots=True)
class LabeledDetection:
    """A detector's box with its mask.

    mask: at the working resolution, with the segmenter's score. box_xyxy: pixels of the working
    resolution. label, score: the detector's.
    """

    mask: Detection
    box_xyxy: Vector
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class MatchingSettings:
    """Thresholds; see `DetectorConfig`.

    mask_iou_min: mask IoU of a matched detection below which the track takes the detection's mask.
    """

    match_min: float
    start_score: float
    sure_score: float
    mask_iou_min: float
    reentry_box_iou_min: float


def match_detections(
    tracker: Tracker,
    detections: Sequence[LabeledDetection],
    now_s: float,
    settings: MatchingSettings,
    looks_alike: LooksAlike,
) -> set[int]:
    """Join the detections of a keyframe with the tracks; the rest begin new tracks.

    looks_alike: whether a detection may be an occluded or lost track's object. Returns the ids of
    tracks whose mask was taken from a detection.
    """
    live = tracker.live()
    similar = _similarity(live, detections)
    matched = assign(1 - similar, 1 - settings.match_min)
    changed = set()
    for row, column in matched.pairs:
        if _take(live[row], detections[column], now_s, settings.mask_iou_min):
            changed.add(live[row].id)
        tracker.confirm(live[row])
    for row in matched.unmatched_tracks:
        _miss(live[row], tracker.settings.confirm_hits)
    left = [
        i
        for i in matched.unmatched_detections
        if not _is_known(live, detections[i], similar[:, i], settings)
    ]
    found = _match_lost(tracker, [detections[i] for i in left], now_s, settings, looks_alike)
    changed |= {track.id for track in found.values()}
    begun = [detections[i] for n, i in enumerate(left) if n not in found]
    _begin(tracker, begun, now_s, settings)
    tracker.drop_removed()
    return changed - {0}


def _take(track: Track, seen: LabeledDetection, now_s: float, mask_iou_min: float) -> bool:
    """Take a matched detection; its mask only where the track's is another one."""
    track.sightings = track.sightings.seen(seen.label, seen.score)
    agreement = float(pairwise_mask_iou(track.mask[None], (seen.mask.logits > 0)[None])[0, 0])
    track.seen_s = now_s
    if agreement >= mask_iou_min:
        return False
    track.correct(seen.mask.logits, seen.mask.score, now_s)
    return True


def _miss(track: Track, confirm_hits: int) -> None:
    track.sightings = track.sightings.missed()
    unsure = 0 < track.sightings.hits < confirm_hits and not track.prompted
    if unsure and track.sightings.misses >= UNSURE_MISSES:
        track.state = TrackState.REMOVED


def _is_known(
    live: Sequence[Track],
    seen: LabeledDetection,
    similar: npt.NDArray[np.float64],
    settings: MatchingSettings,
) -> bool:
    """Whether a detection without a track of its own is of an object that is tracked already."""
    if similar.size and similar.max() >= settings.match_min:
        return True
    mask = seen.mask.logits > 0
    covered = np.zeros_like(mask)
    for track in live:
        if track.sightings.label in ("", seen.label):
            covered |= track.mask
    return int((mask & covered).sum()) >= PART_SHARE * max(1, int(mask.sum()))


def _match_lost(
    tracker: Tracker,
    detections: Sequence[LabeledDetection],
    now_s: float,
    settings: MatchingSettings,
    looks_alike: LooksAlike,
) -> dict[int, Track]:
    """Join detections with occluded and lost tracks at their expected boxes, by look and class.

    Returns the tracks that were found again by the index of their detection.
    """
    lost = tracker.occluded_or_lost()
    expected = np.array([t.motion.box_xyxy for t in lost]).reshape(-1, 4)
    similar = box_iou(expected, _boxes(detections)) * _class_factor(lost, detections)
    for row, column in np.argwhere(similar >= settings.reentry_box_iou_min):
        track, seen = lost[row], detections[column]
        recent = track.state == TrackState.OCCLUDED and track.sightings.label == seen.label
        if not recent and not looks_alike(track, seen.mask):
            similar[row, column] = 0
    found = {}
    for row, column in assign(1 - similar, 1 - settings.reentry_box_iou_min).pairs:
        track, seen = lost[row], detections[column]
        take = track.correct if track.state == TrackState.OCCLUDED else track.replace
        take(seen.mask.logits, seen.mask.score, now_s)
        track.state = TrackState.REENTERED
        track.sightings = track.sightings.seen(seen.label, seen.score)
        found[column] = track
    return found


def _begin(
    tracker: Tracker,
    detections: Sequence[LabeledDetection],
    now_s: float,
    settings: MatchingSettings,
) -> None:
    """Begin tracks for detections of new objects, the best first, each object once."""
    begun: list[LabeledDetection] = []
    for seen in sorted(detections, key=lambda each: -each.score):
        if seen.score < settings.start_score or box_of(seen.mask.logits > 0) is None:
            continue
        if begun and _pair_similarity(begun, [seen]).max() >= settings.match_min:
            continue
        begun.append(seen)
        track = tracker.begin(seen.mask, now_s)
        track.sightings = track.sightings.seen(seen.label, seen.score)
        tracker.confirm(track, at_once=seen.score >= settings.sure_score)


def _similarity(tracks: Sequence[Track], detections: Sequence[LabeledDetection]) -> Similarity:
    """Mean of mask and box IoU, [tracks, detections], less for another class."""
    if not tracks or not detections:
        return np.zeros((len(tracks), len(detections)))
    masks = np.stack([t.mask for t in tracks])
    boxes = np.array([np.zeros(4) if (b := box_of(m)) is None else b for m in masks])
    mask_iou = pairwise_mask_iou(masks, _masks(detections))
    mean = (mask_iou + box_iou(boxes, _boxes(detections))) / 2
    return np.asarray(mean * _class_factor(tracks, detections), np.float64)


def _pair_similarity(
    one: Sequence[LabeledDetection], other: Sequence[LabeledDetection]
) -> Similarity:
    mask_iou = pairwise_mask_iou(_masks(one), _masks(other))
    return np.asarray((mask_iou + box_iou(_boxes(one), _boxes(other))) / 2, np.float64)


def _class_factor(tracks: Sequence[Track], detections: Sequence[LabeledDetection]) -> Similarity:
    labels = np.array([t.sightings.label for t in tracks], object)[:, None]
    other = np.array([d.label for d in detections], object)[None]
    return np.where((labels == "") | (labels == other), 1.0, OTHER_CLASS)


def _masks(detections: Sequence[LabeledDetection]) -> npt.NDArray[np.bool_]:
    return np.stack([d.mask.logits > 0 for d in detections])


def _boxes(detections: Sequence[LabeledDetection]) -> Vector:
    return np.array([d.box_xyxy for d in detections], np.float64).reshape(-1, 4)
