"""A click corrects a mask near the click, in its own direction, whatever the decoder answers."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from maskstream.pipeline.models.find import find_model
from maskstream.pipeline.segmenter.corrections import Correction, PixelClick, correct_mask
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.types import Frame
from maskstream.trackers.iou import mask_iou
from tests.support.media import moving_shapes

SIZE_HW = (120, 176)


class Scene:
    """One frame with two shapes apart, encoded by `lite`."""

    def __init__(self) -> None:
        frames, masks = moving_shapes(11, SIZE_HW, shapes=2, seed=1)
        self.rgb, self.first, self.second = frames[10], masks[10] == 1, masks[10] == 2
        self.segmenter = OpenVinoSegmenter(find_model("lite"), SIZE_HW, threads=1)
        frame = Frame(0, None, Fraction(1), SIZE_HW, ArrayView(self.rgb))
        self.features = self.segmenter.encode(frame)
        self.small = frame.rgb(self.segmenter.geometry.valid_hw)

    def correct(self, mask, click, **about) -> np.ndarray:
        correction = Correction(mask, click, **about)
        return correct_mask(self.segmenter, self.features, self.small, correction)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def center(error) -> tuple[int, int]:
    x, y, depth = deepest(error)
    assert depth
    return x, y


def half(mask) -> np.ndarray:
    """The left half of a mask."""
    left = mask.copy()
    left[:, int(np.nonzero(mask)[1].mean()) :] = False
    return left


def test_a_positive_click_adds_what_was_lost(scene):
    mask = half(scene.first)
    x, y = center(scene.first & ~mask)
    corrected = scene.correct(mask, PixelClick(x, y, True))
    assert corrected[y, x]
    assert not (mask & ~corrected).any()
    assert mask_iou(corrected, scene.first) > mask_iou(mask, scene.first)


def test_a_negative_click_removes_what_does_not_belong(scene):
    mask = scene.first | scene.second
    x, y = center(scene.second)
    corrected = scene.correct(mask, PixelClick(x, y, False))
    assert not corrected[y, x]
    assert not (corrected & ~mask).any()
    assert (corrected & scene.first).sum() == scene.first.sum()  # not connected with the click
    assert mask_iou(corrected, scene.first) > mask_iou(mask, scene.first)


def blobs(seed: int) -> np.ndarray:
    """A mask that has nothing to do with the image."""
    noise = np.random.default_rng(seed).normal(size=SIZE_HW)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 9) > 0)


@pytest.mark.parametrize("is_answer", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_click_is_kept_and_changes_one_connected_part(scene, seed, is_answer):
    rng = np.random.default_rng(seed)
    mask, clicks = blobs(seed), []
    for _ in range(8):
        x, y = (int(rng.integers(n)) for n in SIZE_HW[::-1])
        click = PixelClick(x, y, bool(rng.integers(2)))
        before = mask
        mask = scene.correct(mask, click, earlier=tuple(clicks), is_answer=is_answer)
        clicks = [c for c in clicks if (c.x, c.y) != (x, y)] + [click]
        assert all(mask[c.y, c.x] == c.positive for c in clicks)
        removed, added = before & ~mask, mask & ~before
        assert not (removed if click.positive else added).any()
        parts, labels = cv2.connectedComponents((removed | added).view(np.uint8), connectivity=4)
        assert parts <= 2
        assert parts == 1 or labels[y, x] == 1


@pytest.mark.parametrize("positive", [True, False])
def test_a_click_that_agrees_with_the_mask_changes_nothing(scene, positive):
    x, y = center(scene.first if positive else ~scene.first)
    corrected = scene.correct(scene.first, PixelClick(x, y, positive))
    assert (corrected == scene.first).all()


@pytest.mark.parametrize("corner", [(0, 0), (175, 0), (0, 119), (175, 119)])
def test_a_click_in_a_corner_of_the_frame(scene, corner):
    for mask in (np.zeros(SIZE_HW, np.bool_), scene.first):
        corrected = scene.correct(mask, PixelClick(*corner, True))
        assert corrected[corner[1], corner[0]]
    full = np.ones(SIZE_HW, np.bool_)
    assert not scene.correct(full, PixelClick(*corner, False))[corner[1], corner[0]]


def test_the_same_click_gives_the_same_mask(scene):
    mask = half(scene.first)
    click = PixelClick(*center(scene.first & ~mask), True)
    assert (scene.correct(mask, click) == scene.correct(mask, click)).all()
