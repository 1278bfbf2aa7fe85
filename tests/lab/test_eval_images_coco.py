"""COCO and LVIS annotations: masks to the pixel, the same table as label maps, mask AP."""

import json
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.exports import coco_annotations
from maskstream.pipeline.exports.coco_annotations import CocoObject, encode_masks, load_coco
from maskstream.pipeline.lab.evaluation.coco import as_image_set, coco_images
from maskstream.pipeline.lab.evaluation.images import evaluate_images
from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
from maskstream.pipeline.lab.evaluation.mask_ap import Detection, evaluate_detections
from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener
from tests.support.coco_sets import boxes_of, runs, write_json, write_shapes


@pytest.fixture(scope="module")
def pool() -> SegmenterPool:
    return SegmenterPool(segmenter_opener(PipelineConfig()))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two images of shapes with label maps, and the same masks in `coco.json` and `lvis.json`."""
    return write_shapes(tmp_path_factory.mktemp("data"))


def test_masks_of_polygons_and_both_kinds_of_run_lengths():
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    polygon = [[2, 1, 7, 1, 7, 4, 2, 4]]
    (compressed,) = encode_masks(mask[None])
    counts = compressed["counts"].decode()
    two = [[2, 1, 4, 1, 4, 4, 2, 4], [4, 1, 7, 1, 7, 4, 4, 4]]
    for segmentation in (
        polygon,
        two,
        {"size": [6, 9], "counts": runs(mask)},
        {"size": [6, 9], "counts": counts},
    ):
        found = CocoObject(1, 1, segmentation=segmentation).mask((6, 9))
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("segmentation", "word"),
    [
        ([], "neither polygons nor run lengths"),
        ("abc", "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, "x", 6]], "annotation 7"),
        ({"counts": [4]}, "need 'size' and 'counts'"),
        ({"size": [3, 3], "counts": [9]}, "its size is"),
        ({"size": 6, "counts": [9]}, "its size is"),
        ({"size": [6, 9], "counts": [9]}, "expected 54"),
    ],
)
def test_malformed_masks_name_their_annotation(segmentation, word):
    with pytest.raises(UnreadableSourceError, match="annotation 7") as error:
        CocoObject(7, 1, segmentation=segmentation).mask((6, 9))
    assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "root"),
    [("coco.json", "shapes/images"), ("lvis.json", "shapes/images"), ("lvis.json", "shapes")],
)
def test_json_gives_the_examples_of_label_maps(data, name, root):
    (maps,) = find_label_maps(data)
    items = coco_images(load_coco(data / name), data / root)
    for ours, theirs in zip(items, maps.items, strict=True):
        np.testing.assert_array_equal(ours.load().rgb, theirs.load().rgb)
        np.testing.assert_array_equal(ours.load().masks, theirs.load().masks)


def test_json_is_evaluated_as_one_source(pool, data):
    items = coco_images(load_coco(data / "coco.json"), data / "shapes" / "images", images=1)
    report = evaluate_images(pool, [as_image_set(items, "json")], model="lite", everything=False)
    assert report.sources.keys() == {"json"}
    assert report.sources["json"].objects == 2
    assert report.macro["box"] > 0.7


@pytest.mark.parametrize(
    ("name", "extra"), [("coco.json", set()), ("lvis.json", {"ap_rare", "ap_frequent"})]
)
def test_boxes_of_the_objects_give_a_high_mask_ap(pool, data, name, extra):
    read = load_coco(data / name)
    items = coco_images(read, data / "shapes" / "images")
    beside = Detection(1, 1, (400, 400, 10, 10), 0.99)
    report = evaluate_detections(pool, read, items, [*boxes_of(data / name), beside], model="lite")
    assert (report.images, report.detections) == (2, 4)
    assert report.values.keys() >= {"ap", "ap50", "ap75", "ap_small"} | extra
    assert "ap_large" not in report.values
    assert report.values["ap50"] == 1
    assert 0.5 < report.values["ap"] <= 1


def test_categories_that_the_annotations_lack_are_named(pool, data, caplog):
    read = load_coco(data / "coco.json")
    items = coco_images(read, data / "shapes" / "images")
    other = Detection(1, 99, (4, 4, 10, 10), 0.99)
    evaluate_detections(pool, read, items, [*boxes_of(data / "coco.json"), other], model="lite")
    assert "categories that the annotations lack do not count: 99" in caplog.text


def test_command_prints_mask_ap(cli, data, tmp_path):
    file = tmp_path / "boxes.json"
    boxes = boxes_of(data / "coco.json")
    file.write_text(
        json.dumps(
            [
                {
                    "image_id": b.image_id,
                    "category_id": b.category_id,
                    "bbox": b.bbox,
                    "score": b.score,
                }
                for b in boxes
            ]
        )
    )
    options = ["--image-root", data / "shapes" / "images", "--detections", file, "--images", 1]
    code, out, err = cli("eval", "images", "--data", data / "coco.json", *options)
    assert code == 0, err
    assert "ap50" in out


def bad_files(root: Path, images: Path, good: Path) -> dict[str, tuple[list[object], str]]:
    """Options that cannot work, and a word of the sentence that says why."""
    values = json.loads(good.read_text())
    (root / "text.json").write_text("not json")
    (root / "list.json").write_text("[]")
    (root / "boxes.json").write_text('[{"image_id": 1, "bbox": [0, 0, 1]}]')
    (root / "elsewhere.json").write_text(
        '[{"image_id": 77, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]'
    )
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}
    for name, changes in {
        "nan": {"bbox": [0, float("nan"), 9, 9]},
        "negative": {"bbox": [9, 9, -5, 2]},
        "category": {"category_id": 99},
    }.items():
        (root / f"{name}.json").write_text(json.dumps([box | changes]))
    (root / "lines.jsonl").write_text(json.dumps(box))
    (root / "object.json").write_text(json.dumps(box))
    write_json(root / "no_width.json", **(values | {"images": [{"id": 1, "height": 9}]}))
    larger = [image | {"width": 200} for image in values["images"]]
    write_json(root / "sizes.json", **(values | {"images": larger}))
    away = [image | {"file_name": "away.png"} for image in values["images"]]
    write_json(root / "away.json", **(values | {"images": away}))
    at = ["--image-root", images]
    return {
        "missing": ([root / "missing.json", *at], "there is no file"),
        "not json": ([root / "text.json", *at], "is not JSON"),
        "no annotations": ([root / "list.json", *at], "no COCO annotations"),
        "no width": ([root / "no_width.json", *at], "images: 0.width"),
        "sizes": ([root / "sizes.json", *at], "160x90 pixels"),
        "no image": ([root / "away.json", *at], "there is no image"),
        "no root": ([good], "needs --image-root"),
        "missing root": ([good, "--image-root", root / "nothing"], "there is no folder"),
        "bad boxes": ([good, *at, "--detections", root / "boxes.json"], "0.category_id"),
        "other boxes": ([good, *at, "--detections", root / "elsewhere.json"], "none of the"),
        "not finite": ([good, *at, "--detections", root / "nan.json"], "detection 0 has a box"),
        "negative": ([good, *at, "--detections", root / "negative.json"], "negative width"),
        "category": ([good, *at, "--detections", root / "category.json"], "categories (99)"),
        "lines": (
            [good, *at, "--detections", root / "lines.jsonl"],
            "file of JSON lines, but",
        ),
        "object": ([good, *at, "--detections", root / "object.json"], "holds no list, but"),
    }


def test_bad_files_are_one_sentence(cli, data, tmp_path):
    cases = bad_files(tmp_path, data / "shapes" / "images", data / "coco.json")
    for name, (options, word) in cases.items():
        code, out, err = cli("eval", "images", "--json", "--data", *options)
        assert (code, out) == (1, ""), name
        assert err.startswith("error: "), name
        assert word in err, (name, err)
        assert err.count("\n") == 1, name


def test_missing_extra_is_said(monkeypatch):
    monkeypatch.setattr(coco_annotations, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip install 'maskstream\[eval\]'"):
        CocoObject(1, 1, segmentation=[[0, 0, 4, 0, 4, 4]]).mask((9, 9))
