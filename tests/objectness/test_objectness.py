"""The objectness head at inference: boxes of maps, suppression, and the embedded graph."""

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.find import content_hash, find_model
from maskstream.pipeline.models.head import OBJECTNESS, open_head_of, open_seeding_head
from maskstream.pipeline.objectness.boxes import boxes_from_maps, suppress
from maskstream.pipeline.objectness.card import read_objectness_card
from maskstream.pipeline.objectness.model import LIMIT, SCORE_MIN, ObjectnessModel
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter

FRAME_HW = (360, 640)  # the input is 288 x 512: 0.8 of the frame
GEOMETRY = InputGeometry.fit(FRAME_HW, 512, 32)
BYTES_MAX = 1_000_000


def maps(*cells: tuple[int, int, int, float, float]) -> list[np.ndarray]:
    """Maps at strides 8 and 16 with one answer for each (stride, row, column, score, side)."""
    found = {s: np.full((5, 288 // s, 512 // s), -9, np.float32) for s in (8, 16)}
    for stride, row, column, score, side in cells:
        found[stride][0, row, column] = np.log(score / (1 - score))
        found[stride][1:, row, column] = np.log(side / 2 / stride)
    return list(found.values())


def propose(*cells, score_min=0.1, iou_max=0.7, limit=10):
    return boxes_from_maps(
        maps(*cells), GEOMETRY, score_min=score_min, iou_max=iou_max, limit=limit
    )


@pytest.mark.parametrize(
    ("cell", "box"),
    [
        ((8, 10, 20, 0.9, 40), (144, 64, 184, 104)),
        ((16, 9, 16, 0.9, 128), (200, 88, 328, 216)),
        ((16, 0, 0, 0.9, 64), (0, 0, 40, 40)),  # cut at the image's border
    ],
)
def test_a_cell_becomes_a_box_in_displayed_pixels(cell, box):
    found = propose(cell)
    np.testing.assert_allclose(found.boxes_xyxy, np.array([box]) / 0.8, atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, [0.9, 0.6, 0.3]),
        ({"score_min": 0.5}, [0.9, 0.6]),
        ({"limit": 1}, [0.9]),
        ({"score_min": 0.95}, []),
    ],
)
def test_the_best_boxes_are_kept_in_order(options, scores):
    far = ((8, 5, 5, 0.3, 40), (16, 9, 16, 0.9, 128), (8, 30, 50, 0.6, 40))
    found = propose(*far, **options)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    assert len(found) == len(found.boxes_xyxy) == len(scores)


def test_of_boxes_on_each_other_the_best_is_kept():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 0, 60, 10]], np.float32)
    assert suppress(boxes, np.array([0.5, 0.9, 0.1], np.float32), 0.7).tolist() == [1, 2]
    assert suppress(boxes[:0], np.zeros(0, np.float32), 0.7).tolist() == []


def test_the_embedded_head_fits_the_embedded_model_and_is_small():
    assert read_objectness_card(OBJECTNESS).encoder_hash == content_hash(find_model("lite"))
    assert sum(f.stat().st_size for f in OBJECTNESS.iterdir()) < BYTES_MAX


def test_the_embedded_head_finds_what_stands_out_and_repeats_bit_for_bit():
    image = np.full((*FRAME_HW, 3), (90, 120, 90), np.uint8)
    cv2.circle(image, (200, 180), 60, (200, 40, 30), -1)
    segmenter = OpenVinoSegmenter(find_model("lite"), FRAME_HW, threads=1)
    features = segmenter.encode_rgb(cv2.resize(image, segmenter.geometry.valid_hw[::-1]))
    head = open_head_of(find_model("lite"), threads=1)
    first, second = (head.propose(features, segmenter.geometry) for _ in range(2))
    np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert 0 < len(first) <= LIMIT
    assert first.scores.min() >= SCORE_MIN
    assert (np.diff(first.scores) <= 0).all()
    x0, y0, x1, y1 = first.boxes_xyxy[0]
    np.testing.assert_allclose([x0, y0, x1, y1], [140, 120, 260, 240], atol=12)


@pytest.mark.parametrize(
    ("seeding", "is_open"),
    [
        ({"proposals": "head"}, True),
        ({"proposals": "grid"}, False),
        ({"proposals": "head", "enabled": False}, False),
    ],
)
def test_seeding_opens_the_head_only_where_it_is_used(seeding, is_open):
    config = PipelineConfig(seeding=SeedingConfig(**seeding))
    assert (open_seeding_head(config) is not None) is is_open


def test_a_model_with_another_encoder_has_no_head(tmp_path):
    (tmp_path / "encoder.xml").write_text("another")
    assert open_head_of(tmp_path) is None
    assert open_head_of(tmp_path / "checkpoint.pt") is None


def test_a_folder_without_a_head_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="cannot load the head"):
        ObjectnessModel(tmp_path, threads=1)
    with pytest.raises(ModelError, match=r"objectness\.yaml cannot be used"):
        read_objectness_card(tmp_path)
