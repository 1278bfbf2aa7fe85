"""Files of detections, functions, and the choice of classes: what is read, and what is refused."""

import json
from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.config import DetectorConfig
from maskstream.pipeline.detectors.detector import ChosenDetections, DetectedBox, FunctionDetector
from maskstream.pipeline.detectors.open import open_detector
from maskstream.pipeline.detectors.results_file import FileDetector
from maskstream.pipeline.detectors.rle import mask_of
from maskstream.pipeline.detectors.text import phrases
from maskstream.pipeline.errors import DetectorError, MissingExtraError
from maskstream.pipeline.exports.coco import rle_of
from maskstream.pipeline.sources.arrays import ArraySource

PLACE = "x.jsonl, frame 0, detection 0: "
CAR = {"xyxy": [2, 3, 12, 13], "label": "car", "score": 0.9}


@pytest.fixture
def frame():
    """A frame of 40x30 pixels, index 0."""
    with ArraySource([np.zeros((30, 40, 3), np.uint8)], Fraction(25)).open() as reader:
        return next(iter(reader))


def write(folder, name, content):
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_json_lines_hold_the_detections_of_a_frame_each(tmp_path, frame):
    lines = [{"frame": 0, "detections": [CAR]}, {"frame": 5, "detections": []}]
    file = write(tmp_path, "boxes.jsonl", "\n".join(map(json.dumps, lines)))
    detector = FileDetector(file)
    assert (detector.labels, detector.frames) == (("car",), {0, 5})
    (box,) = detector.detect(frame)
    assert (box.xyxy, box.label, box.score, box.mask) == ((2, 3, 12, 13), "car", 0.9, None)


def test_coco_results_and_data_sets_with_masks(tmp_path, frame):
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:22] = True
    entry = {"image_id": 0, "category_id": 2, "bbox": [10, 5, 12, 15], "score": 0.5}
    kinds = {
        "compressed": rle_of(mask),
        "plain": {"size": [30, 40], "counts": _runs(mask)},
        "polygon": [[10, 5, 21, 5, 21, 19, 10, 19]],
    }
    for name, segmentation in kinds.items():
        values = [entry | {"segmentation": segmentation}]
        results = FileDetector(write(tmp_path, f"{name}.json", values), labels=["a", "b", "c"])
        data = {"annotations": values, "categories": [{"id": 2, "name": "dog"}]}
        named = FileDetector(write(tmp_path, f"{name}-set.json", data))
        for detector, label in ((results, "c"), (named, "dog")):
            detector.check((30, 40))
            (box,) = detector.detect(frame)
            assert (box.xyxy, box.label) == ((10, 5, 22, 20), label)
            np.testing.assert_array_equal(box.mask > 0, mask)


def _runs(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, flat.size]).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_decoded_as_coco_does(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53)) < rng.uniform(0.02, 0.98)
    np.testing.assert_array_equal(mask_of(rle_of(mask), (37, 53)), mask)


def line(**changes):
    return json.dumps({"frame": 0, "detections": [CAR | changes]})


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.json", None, "cannot read the detections"),
        ("x.json", "{", "is not JSON"),
        ("x.json", {"boxes": []}, "holds no detections"),
        ("x.json", [{"image_id": 0, "bbox": [1, 2, 3]}], r"detection 0.bbox"),
        ("x.jsonl", line() + "\n" + line(score=1.5), "line 2: detections.0.score"),
        ("x.jsonl", line(xyxy=[0, 0, float("nan"), 4]), "line 1: detections.0.xyxy.2"),
        ("x.jsonl", line(kind="car"), "line 1: detections.0.kind: unknown key"),
        ("x.jsonl", "[" * 60_000, "line 1"),
    ],
)
def test_malformed_files_are_refused_with_their_place(tmp_path, name, content, sentence):
    file = tmp_path / name
    if content is not None:
        write(tmp_path, name, content)
    with pytest.raises(DetectorError, match=sentence):
        FileDetector(file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"xyxy": [50, 3, 60, 9]}, "no part inside the image of 40x30"),
        ({"xyxy": [9, 9, 5, 12]}, "no part inside"),
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, r"size \[3, 3\]"),
        ({"segmentation": {"size": [30, 40], "counts": "~~~"}}, "run lengths"),
        ({"segmentation": {"size": 5, "counts": [9]}}, "the size 5"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, f"{PLACE}a polygon .* not finite num"),
        ({"segmentation": [[1, 2, float("-inf"), 4, 5, 6]]}, f"{PLACE}a polygon .* not finite num"),
        ({"segmentation": [[1, 2, 1e300, 4, 5, 6]]}, f"{PLACE}a polygon .* not finite num"),
        ({"segmentation": [[1, 2, "a", 4, 5, 6]]}, f"{PLACE}a polygon .* not finite num"),
        ({"segmentation": "a"}, f"{PLACE}its mask is neither polygons nor run lengths"),
    ],
)
def test_boxes_outside_and_masks_of_another_size_are_refused(tmp_path, changes, sentence):
    detector = FileDetector(write(tmp_path, "x.jsonl", line(**changes)))
    with pytest.raises(DetectorError, match=sentence):
        detector.check((30, 40))


def test_a_function_is_a_detector_whose_boxes_are_checked(frame):
    def given(*boxes):
        return ChosenDetections(FunctionDetector(lambda rgb: boxes, name="f"), [], 0.2, 2)

    best = DetectedBox((-5, -5, 8, 8), "a", 0.9)
    outside, weak = DetectedBox((50, 0, 60, 9), "a", 0.8), DetectedBox((0, 0, 9, 9), "b", 0.1)
    second, third = (DetectedBox((0, 0, 9, 9), "b", score) for score in (0.5, 0.4))
    found = given(third, outside, second, weak, best).detect(frame)
    assert [(box.xyxy, box.score) for box in found] == [((0, 0, 8, 8), 0.9), ((0, 0, 9, 9), 0.5)]
    for wrong in (
        DetectedBox((0, 0, float("nan"), 9), "a", 0.5),
        DetectedBox((0, 0, 9, 9), "a", 1.2),
        DetectedBox((0, 0, 9, 9), "a", 0.5, np.full((3, 3), np.nan, np.float32)),
        (0, 0, 9, 9),
    ):
        with pytest.raises(DetectorError, match="detector f"):
            given(wrong).detect(frame)


def test_classes_are_chosen_by_name(frame):
    boxes = [DetectedBox((0, 0, 9, 9), name, 0.5) for name in ("cat", "dog")]
    detector = FunctionDetector(lambda rgb: boxes, labels=["cat", "dog"])
    (found,) = ChosenDetections(detector, ["dog"], 0.2, 9).detect(frame)
    assert found.label == "dog"
    with pytest.raises(DetectorError, match="no class 'cow'; it has cat, dog"):
        ChosenDetections(detector, ["cow"], 0.2, 9)


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"model": "a.onnx", "detections": "b.json"}, DetectorError, "exclude each other"),
        ({"classes": ["dog"]}, DetectorError, "give --detector"),
        ({"text": "a dog."}, MissingExtraError, r"maskstream\[text\].*nothing is downloaded"),
        ({"text": "a dog.", "model": "."}, DetectorError, r"config.json is missing.*--detector"),
        ({"text": " . ", "model": "."}, DetectorError, "names nothing"),
    ],
)
def test_what_a_detector_needs_is_said(values, error, sentence):
    with pytest.raises(error, match=sentence):
        open_detector(DetectorConfig(**values))


def test_words_are_phrases():
    assert phrases("a dog. A red  car,\na dog") == ("a dog", "a red car")
