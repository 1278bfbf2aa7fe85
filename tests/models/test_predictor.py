"""Interactive prediction with the embedded model on a picture whose truth is plain."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from maskstream.pipeline.engine.stills import segment_everything
from maskstream.pipeline.errors import ModelError, PromptError, SourceError
from maskstream.pipeline.models.predictor import Predictor
from maskstream.pipeline.sources.still import rgb_of

BOX = (90, 40, 170, 130)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A red square with rounded shading on a gray gradient, 180 x 320."""
    rows, columns = np.mgrid[:180, :320]
    image = np.stack([90 + columns // 8] * 3, axis=-1).astype(np.uint8)
    inside = (columns >= BOX[0]) & (columns < BOX[2]) & (rows >= BOX[1]) & (rows < BOX[3])
    image[inside] = (210, 40, 30)
    made = Predictor("lite", threads=1)
    made.set_image(image)
    return made


def iou_with_square(mask: np.ndarray) -> float:
    truth = np.zeros((180, 320), bool)
    truth[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return float((mask & truth).sum() / (mask | truth).sum())


def test_box_gives_one_mask_of_the_image_size(predictor):
    answer = predictor.predict(box=BOX)
    assert answer.masks.shape == (1, 180, 320)
    assert iou_with_square(answer.masks[0]) > 0.85


def test_single_point_gives_three_masks_best_first_and_a_second_point_one(predictor):
    one = predictor.predict(points=[(130, 85)])
    assert one.masks.shape[0] == 3
    assert (np.diff(one.iou) <= 0).all()
    assert max(iou_with_square(m) for m in one.masks) > 0.7
    two = predictor.predict(points=[(130, 85), (20, 20)], labels=[1, 0])
    assert two.masks.shape[0] == 1


def test_an_answer_can_be_given_back_as_mask_prompt(predictor):
    first = predictor.predict(box=BOX)
    again = predictor.predict(points=[(130, 85)], mask=first.logits[0])
    assert again.masks.shape[0] == 1
    assert iou_with_square(again.masks[0]) > 0.7


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({}, "at least one point or a box"),
        ({"points": [(400, 10)]}, "outside the image of 320x180"),
        ({"points": [(1, 2)], "labels": [3]}, "labels must be 0 or 1"),
        ({"points": [1, 2]}, "pairs"),
        ({"box": (50, 50, 40, 60)}, "x1 > x0"),
        ({"box": (500, 50, 600, 60)}, "outside the image"),
        ({"points": [("here", 1)]}, "pairs"),
        ({"points": [(1, 2), (3,)]}, "pairs"),
        ({"box": (1, 2, 3, "wide")}, "x1 > x0"),
        ({"box": BOX, "mask": np.zeros((180, 320), bool)}, "logits"),
        ({"box": BOX, "mask": np.zeros((3, 5, 5))}, r"not \[3, 5, 5\]"),
        ({"box": BOX, "mask": "here"}, "logits"),
    ],
)
def test_wrong_prompts_are_sentences(predictor, prompt, says):
    with pytest.raises(PromptError, match=says):
        predictor.predict(**prompt)


def test_order_of_calls_and_unknown_models_are_told():
    with pytest.raises(PromptError, match="set_image before predict"):
        Predictor("lite").predict(points=[(1, 1)])
    with pytest.raises(ModelError, match="no model 'nonsense'"):
        Predictor("nonsense")


COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GRAY = COLORS[..., 0]
GRAY_RGB = np.stack([GRAY] * 3, axis=-1)
OPAQUE = np.dstack([COLORS, np.full((6, 8), 9, np.uint8)])
ON = GRAY > 127


@pytest.mark.parametrize(
    ("image", "rgb"),
    [
        pytest.param(COLORS, COLORS, id="rgb"),
        pytest.param(GRAY, GRAY_RGB, id="gray"),
        pytest.param(GRAY[..., None], GRAY_RGB, id="gray-channel"),
        pytest.param(OPAQUE, COLORS, id="rgba"),
        pytest.param(np.moveaxis(COLORS, -1, 0), COLORS, id="channels-first"),
        pytest.param(GRAY[None], GRAY_RGB, id="gray-channel-first"),
        pytest.param(COLORS / np.float32(255), COLORS, id="float"),
        pytest.param(COLORS / 255.0, COLORS, id="double"),
        pytest.param(COLORS.astype(np.uint16) * 257, COLORS, id="uint16"),
        pytest.param(ON, np.where(ON[..., None], 255, 0) + np.zeros(3), id="bool"),
        pytest.param(COLORS[:, ::-1][:, ::-1], COLORS, id="view"),
    ],
)
def test_images_of_any_kind_become_the_same_rgb(image, rgb):
    converted = rgb_of(image)
    assert converted.dtype == np.uint8
    assert np.array_equal(converted, rgb)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16"])
def test_pil_images_are_seen_as_pil_shows_them(mode):
    pil = pytest.importorskip("PIL.Image")
    if mode == "I;16":
        shown, image = GRAY_RGB, pil.fromarray(GRAY.astype(np.uint16) * 257)
    else:
        image = pil.fromarray(COLORS).convert(mode)
        shown = np.asarray(image.convert("RGB"))
    assert np.array_equal(rgb_of(image), shown)


def test_a_path_and_its_pixels_give_the_same_rgb(tmp_path):
    for name, stored in [("8.png", COLORS), ("16.png", COLORS.astype(np.uint16) * 256 + 200)]:
        file = tmp_path / name
        cv2.imwrite(str(file), stored[..., ::-1])
        assert np.array_equal(rgb_of(file), COLORS)
        assert np.array_equal(rgb_of(str(file)), rgb_of(stored))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (COLORS.astype(np.float32), "values from 0 to 249, but floats are 0"),
        (COLORS / 255 - 0.1, "values from -0.1"),
        (np.full((4, 4), np.nan), "nan"),
        (COLORS.astype(np.int64), "int64, whose white is not known"),
        (COLORS[..., :2], r"uint8 \[6, 8, 2\]"),
        (COLORS[None], r"uint8 \[1, 6, 8, 3\]"),
        (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\]"),
        (np.zeros((1, 20000), np.uint8), "16384"),
        ([[1, 2], [3]], "list, not an array"),
        (None, "give a path, a PIL image"),
        ("nowhere.png", "There is no image nowhere.png"),
        (__file__, "cannot be decoded as an image"),
        (".", "cannot be read"),
    ],
)
def test_what_is_no_image_is_a_sentence(image, says):
    with pytest.raises(SourceError, match=says):
        rgb_of(image)


def test_everything_mode_takes_the_same_images():
    gray = np.full((64, 96), 90, np.uint8)
    gray[20:40, 30:60] = 220
    found = segment_everything(gray, points_per_side=8, threads=1)
    assert found.labels.shape == (64, 96)


def test_after_a_failed_image_there_is_no_answer_from_the_one_before():
    own = Predictor("lite", threads=1)
    own.set_image(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(SourceError):
        own.set_image(np.zeros((48, 64, 2), np.uint8))
    with pytest.raises(PromptError, match="set_image before predict"):
        own.predict(points=[(1, 1)])


def test_threads_on_one_predictor_wait_for_each_other(predictor):
    alone = predictor.predict(box=BOX)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: predictor.predict(box=BOX), range(8)))
    assert all(np.array_equal(answer.logits, alone.logits) for answer in answers)


def test_a_predictor_answers_about_one_image_when_threads_change_it():
    own = Predictor("lite", threads=1)
    sizes = [(48, 64), (64, 48)] * 2
    own.set_image(np.zeros((48, 64), np.uint8))

    def change(size_hw):
        own.set_image(np.full(size_hw, 90, np.uint8))
        return own.predict(points=[(20, 20)]).masks.shape[1:]

    with ThreadPoolExecutor(2) as threads:
        assert set(threads.map(change, sizes)) <= set(sizes)


def test_a_mask_prompt_may_have_its_leading_axis(predictor):
    logits = predictor.predict(box=BOX).logits
    one, two = (predictor.predict(points=[(130, 85)], mask=m) for m in (logits, logits[0]))
    assert np.array_equal(one.masks, two.masks)
