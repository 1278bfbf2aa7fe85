"""Recognition of tracks: predictions of the memory, exchanged identities, absent objects."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
from maskstream.pipeline.lab.evaluation.video.sprites import SpriteImages
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.sources import ArraySource
from maskstream.pipeline.sources.mask_images import read_label_map
from maskstream.pipeline.tracking.recognition import (
    _distances,
    _exchanged,
    _separate_parts,
    _without_far_parts,
)
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Detection
from maskstream.trackers.tracker import Tracker, TrackerSettings


def square(x: int, size: int = 10) -> np.ndarray:
    logits = np.full((40, 80), -5, np.float32)
    logits[10 : 10 + size, x : x + size] = 5
    return logits


def test_occluded_object_is_withheld_then_lost_then_found_again_under_its_id():
    tracker = Tracker(TrackerSettings(occluded_s=1.0))
    tracker.set(4, square(10), 0.9, 0.0)
    (track,) = tracker.tracks
    tracker.apply_recognition(track, square(10), 0.0)
    tracker.mark_occluded(track)
    assert (track.state, track.visible) == (TrackState.OCCLUDED, False)
    assert tracker.occluded_or_lost() == [track]
    tracker.associate(tracker.live(), [], 2.0)
    assert track.state == TrackState.LOST
    tracker.apply_recognition(track, square(50), 2.2)
    assert (track.id, track.state, track.visible) == (4, TrackState.REENTERED, True)
    assert track.mask[15, 55]


def test_a_recognized_object_is_not_missed_when_the_decoder_disagrees():
    tracker = Tracker(TrackerSettings(lost_after_misses=1))
    tracker.set(1, square(10), 0.9, 0.0)
    (track,) = tracker.tracks
    tracker.apply_recognition(track, square(12), 0.2)
    tracker.associate(tracker.live(), [Detection(square(60), 0.9)], 0.2)
    assert track.state == TrackState.TRACKED
    assert track.mask[15, 13]


@pytest.mark.parametrize("name", ["leaving", "cut"])
def test_object_that_left_or_was_occluded_is_found_again_under_its_id(name):
    entry = next(c for c in generated_clips(SpriteImages()) if c.name == name)
    clip = entry.load()
    first = clip.truth.at(0)
    events = [
        {"frame": 0, "type": "mask", "object": int(i), "mask": first == i}
        for i in np.unique(first)
        if i
    ]
    config = PipelineConfig(seeding=SeedingConfig(enabled=False))
    prompts = PromptLog.model_validate({"version": 1, "events": events})
    results = list(Pipeline(config).stream(clip.source, prompts))
    last = clip.truth.at(results[-1].index)
    states = {o.state for r in results for o in r.objects if o.id == 1}
    assert TrackState.OCCLUDED in states or TrackState.LOST in states
    ours, truth = results[-1].labels == 1, last == 1
    assert (ours & truth).sum() / (ours | truth).sum() > 0.5


def two_tracks():
    tracker = Tracker(TrackerSettings())
    tracker.set(1, square(5), 0.9, 0.0)
    tracker.set(2, square(50), 0.9, 0.0)
    return tracker.tracks


def test_exchanged_predictions_go_back_to_the_tracks_whose_masks_they_continue():
    tracks = two_tracks()
    masks = {1: square(51), 2: square(6)}
    assert _exchanged(tracks, masks) == {1: 2, 2: 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (6, 51),  # both where they were propagated to
        (30, 51),  # one moved, to where no track was
        (51, 51),  # one jumped on the other, which stayed
    ],
)
def test_other_predictions_are_not_exchanged(first, second):
    assert _exchanged(two_tracks(), {1: square(first), 2: square(second)}) == {}


def test_a_part_far_from_the_propagated_mask_is_a_similar_object():
    both = np.maximum(square(10), square(50))
    kept = _without_far_parts(both, square(11) > 0)
    np.testing.assert_array_equal(kept > 0, square(10) > 0)


def test_parts_nearby_are_kept_and_so_is_all_if_little_is_near():
    near = np.maximum(square(10, 8), square(20, 4))
    np.testing.assert_array_equal(_without_far_parts(near, square(10) > 0), near)
    jumped = np.maximum(square(10, 2), square(50))
    assert _without_far_parts(jumped, square(10) > 0) is jumped


def test_separate_parts_are_all_but_the_largest_without_specks():
    large, small, speck = square(10), square(40, 5), square(70, 2)
    assert _separate_parts(large) == []
    (part,) = _separate_parts(np.maximum.reduce([large, small, speck]))
    np.testing.assert_array_equal(part, small > 0)
    (away,) = _distances([np.array([42.0, 12.0])], [part])
    assert away == pytest.approx([0])
    ((near,),) = _distances([np.array([47.0, 12.0])], [part])
    assert near == pytest.approx(1)


DOGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "dev_videos" / "dogs-jump"


@pytest.mark.skipif(not DOGS.exists(), reason="needs ../shared/data")
def test_of_two_similar_objects_that_met_each_keeps_its_identity():
    """One dog jumps over the other, and both look alike: the hidden one comes back as itself."""
    files = sorted((DOGS / "frames").iterdir())[:23]
    frames = [cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in files]
    masks = [read_label_map(f) for f in sorted((DOGS / "masks").iterdir())[:23]]
    events = [{"frame": 0, "type": "mask", "object": i, "mask": masks[0] == i} for i in (1, 2, 3)]
    config = PipelineConfig(seeding=SeedingConfig(enabled=False))
    prompts = PromptLog.model_validate({"version": 1, "events": events})
    last = list(Pipeline(config).stream(ArraySource(frames, Fraction(25)), prompts))[-1]
    for i in (1, 2, 3):
        ours, truth = last.labels == i, masks[-1] == i
        assert (ours & truth).sum() / (ours | truth).sum() > 0.6
