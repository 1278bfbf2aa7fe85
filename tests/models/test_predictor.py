"""Interactive prediction with the embedded model on a picture whose truth is plain."""

import numpy as np
import pytest

from maskstream.pipeline.errors import ModelError, PromptError
from maskstream.pipeline.models.predictor import Predictor

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
