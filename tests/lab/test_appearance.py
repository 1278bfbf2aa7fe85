"""The appearance memory on pictures whose cells are known, and hidden objects seen again."""

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
from maskstream.pipeline.lab.evaluation.video.sprites import SpriteImages
from maskstream.pipeline.prompts import PromptLog
from maskstream.trackers.appearance import (
    AppearanceMemory,
    AppearanceSettings,
    CellFeatures,
    MemoryReadout,
    resolve_overlaps,
)
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Detection
from maskstream.trackers.tracker import Tracker, TrackerSettings

GRID = (12, 20)


def scene(column: int, *, present: bool = True, seed: int = 0) -> tuple[CellFeatures, np.ndarray]:
    """A square of 4 x 4 cells of its own kind on a ground of another; features and coverage."""
    rng = np.random.default_rng(7)
    of_ground, of_object = rng.normal(size=(2, 8, 1, 1))
    ground = of_ground + rng.normal(scale=0.2, size=(8, *GRID))
    texture = of_object + rng.normal(scale=0.2, size=(8, 4, 4))
    coverage = np.zeros(GRID, np.float32)
    if present:
        ground[:, 4:8, column : column + 4] = texture
        coverage[4:8, column : column + 4] = 1
    noise = np.random.default_rng(seed).normal(scale=0.05, size=ground.shape)
    maps = np.asarray(ground + noise, np.float32)
    return CellFeatures.of((maps, maps), GRID), coverage


def test_features_of_any_number_of_channels_come_to_the_grid():
    maps = np.random.default_rng(0).standard_normal((300, 8, 12)).astype(np.float32)
    features = CellFeatures.of((maps, maps[:1]), (4, 6))
    mean = maps.reshape(300, 4, 2, 6, 2).mean((2, 4)).reshape(300, -1).T
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(features.keys[:, :300], expected, atol=1e-5)
    assert features.keys.shape == (24, 301)


def test_an_object_is_read_where_it_has_moved_to():
    memory = AppearanceMemory(AppearanceSettings())
    memory.add_reference(1, *scene(2))
    features, truth = scene(13, seed=1)
    readout = memory.read(1, features, None)
    assert np.abs(readout.coverage - truth).max() < 0.1
    assert readout.affinity > 1.9


def test_an_object_is_looked_for_only_around_where_it_was():
    memory = AppearanceMemory(AppearanceSettings(margin=0.25, margin_cells=1))
    features, coverage = scene(2)
    memory.add_reference(1, features, coverage)
    far, _ = scene(13, seed=1)
    readout = memory.read(1, far, coverage)
    assert not readout.coverage.any()
    assert readout.affinity == 0


def test_what_is_gone_is_not_alike():
    memory = AppearanceMemory(AppearanceSettings())
    memory.add_reference(1, *scene(2))
    here = memory.read(1, scene(6, seed=1)[0], None)
    gone = memory.read(1, scene(6, present=False, seed=1)[0], None)
    assert gone.affinity < 0.8 * here.affinity


def test_memory_is_bounded_and_forgets():
    memory = AppearanceMemory(AppearanceSettings(recent=2, references=3, recent_interval_s=0.1))
    for time in range(30):
        features, coverage = scene(time % 10)
        if time % 3 == 0:
            memory.add_reference(1, features, coverage)
        memory.add_recent(1, features, coverage, time / 10)
    known = memory._objects[1]
    assert (len(known.references), len(known.recent)) == (3, 2)
    memory.forget([])
    assert 1 not in memory


def test_keyframes_that_follow_closely_are_remembered_once():
    memory = AppearanceMemory(AppearanceSettings(recent=4, recent_interval_s=0.2))
    features, coverage = scene(2)
    memory.add_reference(1, features, coverage)
    for time in (0.0, 0.04, 0.12, 0.2, 0.24, 0.41):
        memory.add_recent(1, features, coverage, time)
    assert len(memory._objects[1].recent) == 3


def square(x: int, size: int = 10) -> np.ndarray:
    logits = np.full((40, 80), -5, np.float32)
    logits[10 : 10 + size, x : x + size] = 5
    return logits


@pytest.mark.parametrize(
    ("affinity", "moved", "recognized"),
    [
        (1.7, 0, True),  # as alike as ever
        (1.7, 30, True),  # and that counts anywhere
        (1.3, 0, True),  # changed, but where it was carried to
        (1.3, 5, True),  # changed, and near enough to there
        (1.2, 7, False),  # too much of a change for that
        (1.3, 30, False),  # changed and elsewhere: something else
        (0.9, 0, False),  # nothing like it
    ],
)
def test_an_object_is_recognized_by_its_looks_or_where_it_is(affinity, moved, recognized):
    tracker = Tracker(TrackerSettings())
    tracker.set(1, square(10), 0.9, 0.0)
    (track,) = tracker.tracks
    tracker.apply_recognition(track, square(10), 1.7, 0.1)
    assert tracker.recognizes(track, square(10 + moved), affinity) is recognized


def test_a_hidden_object_is_withheld_then_lost_then_seen_again_under_its_id():
    tracker = Tracker(TrackerSettings(occluded_s=1.0))
    tracker.set(4, square(10), 0.9, 0.0)
    (track,) = tracker.tracks
    tracker.apply_recognition(track, square(10), 1.7, 0.0)
    tracker.mark_occluded(track)
    assert (track.state, track.visible) == (TrackState.OCCLUDED, False)
    assert tracker.occluded_or_lost() == [track]
    tracker.associate(tracker.live(), [], 2.0)
    assert track.state == TrackState.LOST
    tracker.apply_recognition(track, square(50), 1.6, 2.2)
    assert (track.id, track.state, track.visible) == (4, TrackState.REENTERED, True)
    assert track.mask[15, 55]


def test_a_recognized_object_is_not_missed_when_the_decoder_disagrees():
    tracker = Tracker(TrackerSettings(lost_after_misses=1))
    tracker.set(1, square(10), 0.9, 0.0)
    (track,) = tracker.tracks
    tracker.apply_recognition(track, square(12), 1.7, 0.2)
    tracker.associate(tracker.live(), [Detection(square(60), 0.9)], 0.2)
    assert track.state == TrackState.TRACKED
    assert track.mask[15, 13]


@pytest.mark.parametrize("name", ["leaving", "cut"])
def test_what_left_or_was_hidden_comes_back_under_its_id(name):
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


def readout(columns: slice, similarity: float) -> MemoryReadout:
    coverage = np.zeros(GRID, np.float32)
    coverage[2:6, columns] = 1
    return MemoryReadout(coverage, np.full(GRID, similarity, np.float32))


def test_a_contested_cell_goes_to_the_object_that_is_clearly_more_alike():
    first, second = readout(slice(0, 8), 1.8), readout(slice(6, 12), 1.6)
    settled = resolve_overlaps({1: first, 2: second})
    assert settled[1].size == 32
    assert not settled[2].coverage[:, 6:8].any()
    assert settled[2].size == 16
    close = resolve_overlaps({1: first, 2: readout(slice(6, 12), 1.79)})
    assert close[2].size == 24


def test_a_hidden_object_is_not_seen_in_another_that_is_more_alike():
    visible = readout(slice(0, 8), 1.7)
    assert readout(slice(0, 8), 1.6).without_claimed([visible]).size == 0
    assert readout(slice(0, 8), 1.75).without_claimed([visible]).size == 32


def test_small_pieces_beside_a_large_one_are_not_believed():
    whole = readout(slice(0, 8), 1.7)
    whole.coverage[10, 15:17] = 1
    assert whole.drop_small_parts().size == 32
    halves = readout(slice(0, 3), 1.7)
    halves.coverage[2:6, 10:13] = 1
    assert halves.drop_small_parts().size == 24


def test_a_piece_elsewhere_is_another_object_of_the_same_kind():
    """As among toy blocks: the one that was followed, not the one beside it."""
    both = readout(slice(2, 6), 1.7)
    both.coverage[4:8, 12:17] = 1
    propagated = np.zeros(GRID, np.float32)
    propagated[4:8, 1:3] = 1
    assert not both.keep_near(propagated).coverage[:, 12:].any()
    assert both.keep_near(propagated).size == 16
    propagated[4:8, 10:12] = 0.4  # also beside the other: parted by what is before it
    assert both.keep_near(propagated).size == 36
    assert both.keep_near(np.zeros(GRID, np.float32)).size == 36  # carried nowhere: no telling


def test_of_two_of_a_kind_the_more_alike_one_is_found():
    both = readout(slice(2, 6), 1.6)
    both.coverage[4:8, 12:17] = 1
    assert both.keep_most_similar().size == both.size  # one thing, parted by what is before it
    both.similarity[:, :8] = 1.9
    assert not both.keep_most_similar().coverage[:, 12:].any()
    assert both.keep_most_similar().size == 16


def test_what_is_gone_is_found_as_one_of_its_kind():
    """From the memory to the reading: a look-alike stands where the object was."""
    memory = AppearanceMemory(AppearanceSettings())
    memory.add_reference(1, *scene(2))
    features, truth = scene(13, seed=1)
    other, where = scene(3, seed=2)
    mixed = features.keys.copy()
    cells = where.reshape(-1) > 0
    mixed[cells] = 0.8 * other.keys[cells] + 0.2 * features.keys[cells]
    found = memory.read(1, CellFeatures(mixed, GRID), None)
    assert found.coverage[truth > 0].min() > 0.5
    assert found.coverage[where > 0].max() < 0.5
    beside = memory.read(1, CellFeatures(mixed, GRID), where)
    assert beside.coverage[where > 0].min() > 0.5


def test_a_large_object_is_read_as_well_by_every_other_cell():
    """Its border cell by cell, the rest on a checkerboard: as much as asking every cell."""
    rng = np.random.default_rng(5)
    keys = rng.normal(size=(40 * 40, 16)).astype(np.float32)
    truth = np.zeros((40, 40), np.float32)
    truth[8:32, 6:30] = 1
    keys[truth.reshape(-1) > 0, :4] += 3.0
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    features = CellFeatures(keys, (40, 40))
    memory = AppearanceMemory(AppearanceSettings())
    memory.add_reference(1, features, truth)
    readout = memory.read(1, features, truth)
    assert ((readout.coverage > 0.5) != (truth > 0.5)).sum() <= 4
    assert (readout.similarity[truth > 0] > -2).all()
