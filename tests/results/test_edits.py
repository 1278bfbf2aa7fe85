"""Objects taken out of a result and laid over it leave the others' whole masks as they are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.results.edits import add_object, keep_objects
from maskstream.pipeline.types import FrameResult, ObjectResult
from maskstream.trackers.state import TrackState

SHAPE = (9, 13)


def blob(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.bool_)
    y, x = rng.integers(0, 5, 2)
    mask[y : y + 5, x : x + 7] = rng.random((5, 7))[: 9 - y] > 0.2
    return mask


def found(object_id: int, score: float) -> ObjectResult:
    return ObjectResult(object_id, (0.0, 0.0, 1.0, 1.0), score, TrackState.TRACKED, 0)


def stack(scores: dict[int, float], seed: int) -> tuple[FrameResult, dict[int, np.ndarray]]:
    result = FrameResult(0, 0, Fraction(1), False, np.zeros(SHAPE, np.uint16), ())
    masks = {i: blob(100 * seed + i) for i in scores}
    for i, score in scores.items():
        result = add_object(result, found(i, score), masks[i])
    return result, masks


@pytest.mark.parametrize("seed", range(8))
def test_whole_masks_survive_whatever_is_laid_over_them(seed):
    result, masks = stack({1: 0.5, 2: 0.9, 3: 0.7}, seed)
    for i, mask in masks.items():
        assert np.array_equal(result.mask(i), mask)
    scores = {o.id: o.score for o in result.objects}
    for y, x in np.argwhere(result.labels):
        there = [i for i, mask in masks.items() if mask[y, x]]
        assert result.labels[y, x] == max(there, key=scores.__getitem__)
    assert np.array_equal(result.labels > 0, np.any(list(masks.values()), axis=0))
    for o in result.objects:
        assert o.area == (result.labels == o.id).sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kept", [{1}, {2}, {1, 3}, {2, 3}, set()])
def test_what_is_taken_out_shows_what_it_hid(seed, kept):
    result, masks = stack({1: 0.5, 2: 0.9, 3: 0.7}, seed)
    left = keep_objects(result, kept)
    assert {o.id for o in left.objects} == kept
    expected, _ = stack({i: s for i, s in {1: 0.5, 2: 0.9, 3: 0.7}.items() if i in kept}, seed)
    assert np.array_equal(left.labels, expected.labels)
    for i in kept:
        assert np.array_equal(left.mask(i), masks[i])


def test_nothing_to_take_out_changes_nothing():
    result, _ = stack({1: 0.5, 2: 0.9}, 0)
    assert keep_objects(result, {1, 2, 3}) is result
