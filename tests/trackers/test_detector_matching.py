"""How a detector's boxes are joined with tracks: each case as a row of rectangles."""

import numpy as np
import pytest

from maskstream.trackers.detector_matching import (
    UNSURE_MISSES,
    LabeledDetection,
    MatchingSettings,
    match_detections,
)
from maskstream.trackers.sightings import UNSEEN
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Detection
from maskstream.trackers.tracker import Tracker, TrackerSettings

SIZE = (60, 80)
SETTINGS = MatchingSettings(
    match_min=0.3, start_score=0.4, sure_score=0.6, mask_iou_min=0.5, reentry_box_iou_min=0.3
)
LEFT, RIGHT = (5, 10, 25, 40), (50, 10, 70, 40)


def logits(box):
    x0, y0, x1, y1 = box
    filled = np.full(SIZE, -8.0, np.float32)
    filled[y0:y1, x0:x1] = 8
    return filled


def seen(box, label="car", score=0.9):
    return LabeledDetection(Detection(logits(box), 0.9), np.array(box, float), label, score)


@pytest.fixture
def tracker():
    return Tracker(TrackerSettings())


def match(tracker, *detections, now_s=0.0, alike=lambda track, found: False):
    return match_detections(tracker, detections, now_s, SETTINGS, alike)


def shown(tracker):
    return {t.id: t.sightings.label for t in tracker.tracks if t.visible}


def moved(box, x):
    return (box[0] + x, box[1], box[2] + x, box[3])


def test_sure_detections_are_shown_at_once_and_others_after_a_second_one(tracker):
    match(tracker, seen(LEFT, "car", 0.9), seen(RIGHT, "dog", 0.5))
    assert shown(tracker) == {1: "car"}
    match(tracker, seen(RIGHT, "dog", 0.5))
    assert shown(tracker) == {1: "car", 2: "dog"}


@pytest.mark.parametrize(
    "again",
    [
        [seen(moved(LEFT, 3))],
        [seen(LEFT), seen(moved(LEFT, 2), score=0.8)],  # two boxes of one object
        [seen(LEFT), seen((7, 12, 20, 25))],  # and a part of it
        [seen(LEFT, "truck", 0.7)],  # another class
        [seen(LEFT, score=0.26)],
    ],
)
def test_a_detection_that_matches_a_track_never_makes_a_second_one(tracker, again):
    match(tracker, seen(LEFT))
    match(tracker, *again)
    assert len(tracker.tracks) == 1
    assert tracker.tracks[0].sightings.hits == 2


def test_two_boxes_of_a_new_object_make_one_track(tracker):
    match(tracker, seen(LEFT, score=0.7), seen(moved(LEFT, 3), score=0.9))
    (track,) = tracker.tracks
    assert track.sightings.score == 0.9


def test_the_class_is_that_of_most_votes_and_the_score_the_last(tracker):
    for label, score in (("car", 0.6), ("car", 0.7), ("truck", 0.9)):
        match(tracker, seen(LEFT, label, score))
    assert (tracker.tracks[0].sightings.label, tracker.tracks[0].sightings.score) == ("car", 0.9)


def test_classes_decide_between_two_tracks_that_overlap(tracker):
    match(tracker, seen((5, 10, 25, 40), "car"), seen((18, 10, 38, 40), "dog"))
    match(tracker, seen((11, 10, 31, 40), "dog"))
    assert [t.sightings.hits for t in tracker.tracks] == [1, 2]


def test_what_is_not_detected_is_followed_if_it_was_found_twice_and_else_dropped(tracker):
    match(tracker, seen(LEFT))
    match(tracker, seen(LEFT), seen(RIGHT))
    for _ in range(UNSURE_MISSES):
        assert len(tracker.tracks) == 2
        match(tracker)
    assert shown(tracker) == {1: "car"}
    for _ in range(10):
        match(tracker)
    assert shown(tracker) == {1: "car"}


def test_objects_of_a_person_are_named_and_never_dropped(tracker):
    tracker.set(7, logits(LEFT), 1.0, 0.0)
    for detections in ([seen(moved(LEFT, 1), "dog")], *[[]] * 5):
        match(tracker, *detections)
    assert shown(tracker) == {7: "dog"}


def test_weak_detections_begin_nothing(tracker):
    match(tracker, seen(LEFT, score=0.3))
    assert tracker.tracks == []


def test_a_track_takes_the_mask_of_a_detection_that_its_own_does_not_fit(tracker):
    tracker.set(1, logits(LEFT), 1.0, 0.0)
    assert match(tracker, seen(moved(LEFT, 1))) == set()
    assert match(tracker, seen((5, 10, 25, 59)), now_s=1.0) == set()
    assert match(tracker, seen((5, 10, 38, 48)), now_s=2.0) == {1}
    assert np.array_equal(tracker.tracks[0].mask, logits((5, 10, 38, 48)) > 0)


@pytest.mark.parametrize(
    ("state", "label", "alike", "found"),
    [
        (TrackState.OCCLUDED, "car", False, True),  # where it is expected, of its class
        (TrackState.OCCLUDED, "dog", False, False),
        (TrackState.LOST, "car", False, False),
        (TrackState.LOST, "car", True, True),  # and looks like it
    ],
)
def test_occluded_and_lost_tracks_are_found_again(tracker, state, label, alike, found):
    for _ in range(2):
        match(tracker, seen(LEFT))
    tracker.tracks[0].state = state
    match(tracker, seen(moved(LEFT, 4), label), now_s=1.0, alike=lambda track, seen: alike)
    assert (tracker.tracks[0].state == TrackState.REENTERED) == found
    assert len(tracker.tracks) == (1 if found else 2)


def test_a_cut_keeps_what_the_detector_is_sure_of(tracker):
    match(tracker, seen(LEFT))
    match(tracker, seen(LEFT), seen(RIGHT))
    tracker.mark_all_lost()
    assert [t.id for t in tracker.tracks] == [1]


def test_sightings_count_hits_and_misses_in_a_row():
    after = UNSEEN.seen("a", 0.5).missed().missed().seen("b", 0.75)
    assert (UNSEEN.label, UNSEEN.score) == ("", None)
    assert (after.label, after.score, after.hits, after.misses) == ("b", 0.75, 2, 0)
    assert UNSEEN.seen("a", 0.5).seen("b", 0.5).label == "a"  # the first among equals
