"""How a frame lies in the network's input, and the way back."""

import cv2
import numpy as np
import pytest

from maskstream.pipeline.segmenter.geometry import InputGeometry, boxes_of, deepest


@pytest.mark.parametrize(
    ("frame_hw", "valid_hw", "input_hw"),
    [
        ((720, 1280), (288, 512), (288, 512)),
        ((272, 640), (218, 512), (224, 512)),
        ((1280, 720), (512, 288), (512, 288)),
        ((100, 100), (512, 512), (512, 512)),
        ((1, 1), (512, 512), (512, 512)),
        ((1, 4000), (1, 512), (32, 512)),
    ],
)
def test_only_the_valid_rows_and_columns_are_encoded(frame_hw, valid_hw, input_hw):
    geometry = InputGeometry.fit(frame_hw, 512, 32)
    assert (geometry.valid_hw, geometry.input_hw) == (valid_hw, input_hw)


def test_coordinates_are_normalized_by_the_square():
    geometry = InputGeometry.fit((720, 1280), 512, 32)
    corner = geometry.normalize(np.array([[1280, 720]], np.float32))
    assert corner[0] == pytest.approx([1.0, 720 / 1280])


def test_logits_go_to_the_frame_and_back():
    """A half plane keeps its place through both resamplings, padding or not."""
    geometry = InputGeometry.fit((272, 640), 512, 32)
    columns = np.arange(640, dtype=np.float32)[None].repeat(272, 0)
    edge_at_400 = columns + 0.5 - 400
    grid = geometry.from_size(edge_at_400)
    assert grid.shape == geometry.grid_hw
    back = geometry.to_size(grid, (272, 640))
    inner = slice(8, -8)
    assert np.abs((back - edge_at_400)[:, inner]).max() < 1e-2


def test_cell_centers_are_those_of_the_padded_square():
    x, y = InputGeometry.fit((720, 1280), 512, 32).cell_centers()
    assert x[0, 0] == pytest.approx(2 / 512)
    assert y[-1, 0] == pytest.approx((288 - 2) / 512)


def test_boxes_are_tight_and_an_empty_mask_has_the_whole_grid():
    masks = np.zeros((2, 6, 9), bool)
    masks[0, 2:4, 3:8] = True
    assert boxes_of(masks).tolist() == [[3, 2, 8, 4], [0, 0, 9, 6]]


def test_the_deepest_pixel_is_the_same_at_every_call():
    """OpenCV's exact distance transform is not: of equal depths now one, now another was first."""
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((90, 160)).astype(np.float32), (0, 0), 4) > 0.5
    found = {deepest(mask.copy()) for _ in range(100) if rng.random(rng.integers(10, 5000)).size}
    assert len(found) == 1


def test_the_deepest_pixel_is_far_from_the_image_s_edge_too():
    mask = np.zeros((40, 60), np.bool_)
    mask[:21, 10:31] = True
    x, y, depth = deepest(mask)
    assert (x, y) == (20, 10)
    assert depth == pytest.approx(11, abs=0.5)
    assert deepest(np.zeros((4, 4), np.bool_)) == (0, 0, 0.0)
