"""Cleaning up a mask: pure functions, on masks whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.exports.edges import Edges, clean_mask
from maskstream.ui.editing.cleanup import clean, smooth_outline


def fill_holes(mask: np.ndarray, area: int) -> np.ndarray:
    return clean_mask(mask, Edges(fill_holes_px=area))


def drop_specks(mask: np.ndarray, area: int) -> np.ndarray:
    return clean_mask(mask, Edges(remove_islands_px=area))


def square(size: int = 40, border: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[border:-border, border:-border] = True
    return mask


@pytest.mark.parametrize(("area", "filled"), [(0, False), (5, False), (6, True), (100, True)])
def test_holes_up_to_an_area_are_filled(area, filled):
    mask = square()
    mask[15:17, 15:18] = False
    assert (fill_holes(mask, area) == (square() if filled else mask)).all()


def test_a_notch_of_the_outline_and_the_frames_border_are_no_holes():
    mask = np.ones((20, 20), np.bool_)
    mask[0:2, 5:7] = False
    assert (fill_holes(mask, 100) == mask).all()
    mask = square()
    mask[10:13, 15] = False
    assert (fill_holes(mask, 100) == mask).all()


@pytest.mark.parametrize(("area", "dropped"), [(0, False), (3, False), (4, True)])
def test_specks_up_to_an_area_are_dropped(area, dropped):
    mask = square()
    mask[2:4, 2:4] = True
    assert (drop_specks(mask, area) == (square() if dropped else mask)).all()


def test_parts_that_touch_at_a_corner_are_one():
    mask = square()
    mask[9, 9] = True
    assert (drop_specks(mask, 50) == mask).all()


def test_smoothing_keeps_size_and_place_and_removes_spikes():
    mask = square()
    mask[0:10, 20] = True  # a spike
    mask[30:36, 25] = True
    smooth = smooth_outline(mask, 4)
    assert not smooth[:8].any()
    assert abs(int(smooth.sum()) - 400) < 40
    assert (smooth_outline(mask, 0) == mask).all()


def test_a_straight_edge_at_the_frames_border_stays():
    mask = np.zeros((30, 30), np.bool_)
    mask[:, :12] = True
    assert (smooth_outline(mask, 5) == mask).all()


def test_empty_and_full_masks_stay():
    empty, full = np.zeros((8, 8), np.bool_), np.ones((8, 8), np.bool_)
    for function in (fill_holes, drop_specks, smooth_outline):
        assert not function(empty, 3).any()
        assert function(full, 3).all()


def test_a_mask_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(PromptError, match="Nothing would be left"):
        clean(square(), specks=400)
