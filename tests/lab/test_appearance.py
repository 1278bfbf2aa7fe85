"""The untrained appearance memory of the baseline `affinity`, on images whose cells are known."""

import numpy as np

from maskstream.pipeline.lab.evaluation.video.appearance import (
    AppearanceMemory,
    AppearanceSettings,
    CellFeatures,
    MemoryReadout,
)

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
    readout = memory.read(1, features)
    assert np.abs(readout.coverage - truth).max() < 0.1
    assert readout.affinity > 1.9


def test_what_is_gone_is_not_alike():
    memory = AppearanceMemory(AppearanceSettings())
    memory.add_reference(1, *scene(2))
    here = memory.read(1, scene(6, seed=1)[0])
    absent = memory.read(1, scene(6, present=False, seed=1)[0])
    assert absent.affinity < 0.8 * here.affinity


def test_memory_is_bounded():
    memory = AppearanceMemory(AppearanceSettings(recent=2, references=3, recent_interval_s=0.1))
    for time in range(30):
        features, coverage = scene(time % 10)
        if time % 3 == 0:
            memory.add_reference(1, features, coverage)
        memory.add_recent(1, features, coverage, time / 10)
    known = memory._objects[1]
    assert (len(known.references), len(known.recent)) == (3, 2)


def test_keyframes_that_follow_closely_are_remembered_once():
    memory = AppearanceMemory(AppearanceSettings(recent=4, recent_interval_s=0.2))
    features, coverage = scene(2)
    memory.add_reference(1, features, coverage)
    for time in (0.0, 0.04, 0.12, 0.2, 0.24, 0.41):
        memory.add_recent(1, features, coverage, time)
    assert len(memory._objects[1].recent) == 3


def readout(columns: slice, similarity: float) -> MemoryReadout:
    coverage = np.zeros(GRID, np.float32)
    coverage[2:6, columns] = 1
    return MemoryReadout(coverage, np.full(GRID, similarity, np.float32))


def test_small_pieces_beside_a_large_one_are_not_believed():
    whole = readout(slice(0, 8), 1.7)
    whole.coverage[10, 15:17] = 1
    assert whole.drop_small_parts().size == 32
    halves = readout(slice(0, 3), 1.7)
    halves.coverage[2:6, 10:13] = 1
    assert halves.drop_small_parts().size == 24


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
    found = memory.read(1, CellFeatures(mixed, GRID))
    assert found.coverage[truth > 0].min() > 0.5
    assert found.coverage[where > 0].max() < 0.5


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
    readout = memory.read(1, features)
    assert ((readout.coverage > 0.5) != (truth > 0.5)).sum() <= 4
    assert (readout.similarity[truth > 0] > -2).all()
