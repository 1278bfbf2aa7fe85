"""FastSAM's way of prompting, with the detector with masks that finds discs, squares, triangles."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskstream
from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.detectors.fast_sam import FastSamSegmenter
from maskstream.pipeline.errors import ModelError, PromptError
from maskstream.pipeline.models.find import find_model, names_checkpoint
from maskstream.pipeline.segmenter.everything import EverythingChoice, find_everything
from maskstream.pipeline.segmenter.found_masks import FoundMasks
from maskstream.pipeline.segmenter.model import Features, PromptBatch
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.tracking.seeding import Seeder
from maskstream.pipeline.types import Frame
from maskstream.trackers.iou import mask_iou
from tests.support.labeled_shapes import CLASSES, labeled_clip

SHAPES = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"
NUMBERS = range(1, 1 + len(CLASSES))


@pytest.fixture(scope="module")
def scene():
    """A frame of three shapes with its label map."""
    frames, labels = labeled_clip(1, seed=2)
    return frames[0], labels[0]


@pytest.fixture(scope="module")
def predictor(scene):
    found = maskstream.Predictor(SHAPES)
    found.set_image(scene[0])
    return found


@pytest.fixture(scope="module")
def nested(scene):
    """The segmenter, and masks as on an image of a car (0) with a window (1), and a tree (2)."""
    segmenter = FastSamSegmenter(SHAPES, scene[1].shape)
    height, width = segmenter.geometry.grid_hw
    logits = np.full((3, height, width), -6, np.float32)
    logits[0, 4:20, 4:24] = 6
    logits[1, 6:10, 6:12] = 6
    logits[2, 10:22, 28:36] = 6
    return segmenter, FoundMasks({}, logits, np.float32([0.6, 0.9, 0.8]))


def displayed(segmenter, x, y):
    """Pixels of the frame at a cell of the grid."""
    cell = np.array([x, y], np.float32) * segmenter.geometry.cell
    return cell / np.array(segmenter.geometry.scale_xy, np.float32)


def middle(mask):
    y, x = np.nonzero(mask)
    at = len(x) // 2
    return int(x[at]), int(y[at])


def box_of(mask):
    y, x = np.nonzero(mask)
    return x.min(), y.min(), x.max() + 1, y.max() + 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_box_and_a_click_take_the_shape(scene, predictor, number):
    truth = scene[1] == number
    for asked in ({"box": box_of(truth)}, {"points": [middle(truth)]}):
        assert mask_iou(predictor.predict(**asked).masks[0], truth) > 0.7


def test_where_nothing_is_found_the_mask_is_empty(scene, predictor):
    y, x = np.argwhere(scene[1] == 0)[0]
    found = predictor.predict(points=[(x, y)])
    assert not found.masks.any()
    assert not found.iou.any()


def test_a_mask_prompt_is_refused(predictor):
    logits = predictor.predict(points=[(3, 3)]).logits[0]
    with pytest.raises(PromptError, match="takes points and boxes only"):
        predictor.predict(points=[(3, 3)], mask=logits)


@pytest.mark.parametrize(
    ("points", "labels", "expected"),
    [
        ([(8, 8)], [1], {0}),  # the union of all that hold it
        ([(15, 15)], [1], {0}),
        ([(15, 15), (30, 12)], [1, 1], {0, 2}),
        ([(15, 15), (8, 8)], [1, 0], set()),  # the window lies in the car, which goes with it
        ([(30, 12), (8, 8)], [1, 0], {2}),
    ],
)
def test_points_take_what_holds_them_and_lose_what_holds_negative_ones(
    nested, points, labels, expected
):
    segmenter, found = nested
    xy = np.array([[displayed(segmenter, x + 0.5, y + 0.5) for x, y in points]])
    answer = segmenter.decode(found, PromptBatch.points(xy, [labels])).masks[0, 0] > 0
    union = np.zeros_like(answer)
    for index in expected:
        union |= found.logits[index] > 0
    np.testing.assert_array_equal(answer, union)


def test_candidates_of_a_click_are_by_score(nested):
    segmenter, found = nested
    prompt = PromptBatch.points(displayed(segmenter, 8.5, 8.5)[None, None])
    decoded = segmenter.decode(found, prompt)
    np.testing.assert_allclose(decoded.iou[0], [0.9, 0.9, 0.6, 0])
    np.testing.assert_array_equal(decoded.masks[0, 1] > 0, found.logits[1] > 0)
    np.testing.assert_array_equal(decoded.masks[0, 2] > 0, found.logits[0] > 0)
    assert not (decoded.masks[0, 3] > 0).any()


def test_a_box_takes_the_best_iou_among_what_fits_the_points(nested):
    segmenter, found = nested
    near, far = displayed(segmenter, 5, 5), displayed(segmenter, 14, 12)
    boxed = PromptBatch.boxes(np.concatenate([near, far]))
    np.testing.assert_array_equal(
        segmenter.decode(found, boxed).masks[0, 0] > 0, found.logits[1] > 0
    )
    outside_window = displayed(segmenter, 13.5, 11.5)
    with_point = PromptBatch(
        np.concatenate([boxed.xy, outside_window[None, None]], 1), np.float32([[2, 3, 1]])
    )
    np.testing.assert_array_equal(
        segmenter.decode(found, with_point).masks[0, 0] > 0, found.logits[0] > 0
    )


def test_a_frame_without_detections_gives_empty_masks(scene):
    segmenter = FastSamSegmenter(SHAPES, scene[1].shape)
    gray = np.full((*scene[1].shape, 3), 90, np.uint8)
    features = segmenter.encode(Frame(0, None, Fraction(1), scene[1].shape, ArrayView(gray)))
    decoded = segmenter.decode(features, PromptBatch.boxes([2, 2, 30, 30]))
    assert decoded.masks.shape == (1, 4, *segmenter.geometry.grid_hw)
    assert not (decoded.masks > 0).any()
    with pytest.raises(TypeError, match="not encoded by a FastSamSegmenter"):
        segmenter.decode(Features({}), PromptBatch.boxes([2, 2, 30, 30]))


def test_everything_mode_takes_the_network_s_masks_and_asks_nothing(scene):
    segmenter = FastSamSegmenter(SHAPES, scene[1].shape)
    frame = Frame(0, None, Fraction(1), scene[1].shape, ArrayView(scene[0]))
    features = segmenter.encode(frame)
    settings = EverythingChoice().settings(segmenter.card)
    found, prompts = find_everything(segmenter, features, settings, "hierarchical")
    assert prompts == 0
    assert len(found) == len(CLASSES) <= len(features.scores)
    assert all((features.logits == p.logits).all((1, 2)).any() for p in found)
    result = maskstream.segment_everything(scene[0], SHAPES)
    assert len(result.objects) == len(CLASSES)
    for number in NUMBERS:
        truth = scene[1] == number
        best = max(mask_iou(result.labels == each.id, truth) for each in result.objects)
        assert best > 0.7


def test_everything_mode_keeps_one_of_two_masks_of_the_same(nested):
    segmenter, found = nested
    twice = FoundMasks({}, np.repeat(found.logits, 2, 0), np.repeat(found.scores, 2) - 0.01)
    settings = EverythingChoice(iou_min=0.7).settings(segmenter.card)
    kept, _ = find_everything(segmenter, twice, settings, "plain")
    assert [round(p.score, 2) for p in kept] == [0.89, 0.79]


@pytest.mark.parametrize("moment", ["after a cut", "later"])
def test_a_stream_seeds_the_network_s_masks_where_no_track_is(scene, moment):
    segmenter = FastSamSegmenter(SHAPES, scene[1].shape)
    frame = Frame(0, None, Fraction(1), scene[1].shape, ArrayView(scene[0]))
    features = segmenter.encode(frame)
    first = segmenter.geometry.from_size((scene[1] == 1).astype(np.float32)) > 0.5
    seeder = Seeder(segmenter, SeedingConfig(score_min=0.4, prompts_first=0))
    if moment == "after a cut":
        found = seeder.propose_after_cut(features, first, 8)
    else:
        found = seeder.propose_incremental(features, first, 8, np.zeros_like(first), 0)
    assert len(found) == len(CLASSES) - 1
    assert all(not ((p.logits > 0) & first).any() for p in found)


def test_the_command_asks_no_grid(cli, scene, tmp_path):
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), scene[0][..., ::-1])
    code, out, err = cli("everything", image, "--model", SHAPES, "--json")
    assert code == 0, err
    assert json.loads(out)["prompts"] == 0
    assert len(json.loads(out)["objects"]) == len(CLASSES)
    code, _, err = cli("everything", image, "--model", SHAPES, "--grid", "plain")
    assert (code, "finds all masks at once" in err) == (1, True)


def test_a_graph_is_a_model_and_no_checkpoint(tmp_path):
    assert find_model(SHAPES) == SHAPES
    assert not names_checkpoint(str(SHAPES))
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="OpenVINO cannot read"):
        FastSamSegmenter(tmp_path / "no.onnx", (64, 64))
