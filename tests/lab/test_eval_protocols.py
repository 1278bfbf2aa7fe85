"""`eval prompts`, `eval wild` and `eval papers`: the papers' protocols, and their tables."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.fast_sam import FastSamSegmenter
from maskstream.pipeline.exports.coco_annotations import load_coco
from maskstream.pipeline.lab.evaluation.coco import as_image_set, coco_images
from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
from maskstream.pipeline.lab.evaluation.mask_ap import evaluate_detections
from maskstream.pipeline.lab.evaluation.papers import COLUMNS, MEASURED, PUBLISHED, Protocol
from maskstream.pipeline.lab.evaluation.prompted import PROMPTS, evaluate_prompts
from maskstream.pipeline.lab.evaluation.wild import find_wild_sets
from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.labels import BOX_TOP_LEFT, PAD
from tests.support.coco_sets import boxes_of, runs, write_json, write_shapes
from tests.support.labeled_shapes import labeled_clip
from tests.support.scripted import Scripted

SHAPES_NETWORK = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"


@pytest.fixture(scope="module")
def pool() -> SegmenterPool:
    return SegmenterPool(segmenter_opener(PipelineConfig()))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data"))


def block(left: int, size_hw=(32, 64)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[8:24, left : left + 16] = True
    return mask


def logits(mask: np.ndarray) -> np.ndarray:
    return np.where(mask[2::4, 2::4], 5, -5).astype(np.float32)


def write_blocks(root: Path, areas: tuple[float, float], *, crowd: bool) -> list:
    """One image with two blocks as COCO, the second possibly a crowd; its items."""
    cv2.imwrite(str(root / "a.png"), np.zeros((32, 64, 3), np.uint8))
    objects = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [32, 64], "counts": runs(mask)},
            "area": area,
            "iscrowd": int(crowd and number == 1),
        }
        for number, (mask, area) in enumerate(zip((block(16), block(40)), areas, strict=True))
    ]
    image = {"id": 1, "height": 32, "width": 64, "file_name": "a.png"}
    file = write_json(root / "a.json", images=[image], annotations=objects, categories=[{"id": 1}])
    return coco_images(load_coco(file), root)


def test_objects_are_prompted_as_in_the_papers(tmp_path):
    """The best of three by predicted IoU, clicks that add up, no mask prompt, all objects alike."""
    items = write_blocks(tmp_path, (900, 5000), crowd=True)
    answers = np.stack([logits(m) for m in (~block(16), block(40), block(16), ~block(16))])
    segmenter = Scripted(answers, InputGeometry.fit((32, 64), 64, 32))
    report = evaluate_prompts(
        SegmenterPool(lambda _: segmenter), [as_image_set(items, "set")], model="x"
    )

    box, *clicks = segmenter.asked
    np.testing.assert_array_equal(box.xy.reshape(2, 4), [[16, 8, 32, 24], [40, 8, 56, 24]])
    assert (box.labels[:, 0] == BOX_TOP_LEFT).all()
    assert [prompts.labels.shape for prompts in clicks] == [(2, n + 1) for n in range(1, 6)]
    assert all((prompts.labels[:, -1] == PAD).all() for prompts in clicks)
    assert all(prompts.mask is None for prompts in segmenter.asked)
    np.testing.assert_array_equal(clicks[4].xy[:, :4], clicks[3].xy[:, :4])

    assert report.objects == {"all": 2, "small": 1, "medium": 1}  # by the annotated area
    assert report.values.keys() == set(PROMPTS)
    for by_size in report.values.values():
        assert by_size["small"] > 0.7
        assert by_size["medium"] == 0
        assert by_size["all"] == pytest.approx(by_size["small"] / 2, abs=1e-4)


def test_single_mask_is_the_decoders_first(tmp_path):
    items = write_blocks(tmp_path, (900, 0.5), crowd=False)  # the second has no area
    answers = np.stack([logits(m) for m in (block(40), block(16), block(16), block(16))])
    segmenter = Scripted(answers, InputGeometry.fit((32, 64), 64, 32))
    pool, sets = SegmenterPool(lambda _: segmenter), [as_image_set(items, "set")]
    best = evaluate_prompts(pool, sets, model="x")
    single = evaluate_prompts(pool, sets, model="x", single_mask=True)
    assert best.objects == {"all": 1, "small": 1}
    assert best.values["box"]["all"] > 0.7
    assert single.values["box"]["all"] == 0


def test_fast_sam_answers_clicks_with_the_union_of_its_masks(tmp_path):
    frames, labels = labeled_clip(2, seed=2)
    for kind, images in (("images", frames[..., ::-1]), ("masks", labels)):
        (tmp_path / "shapes" / kind).mkdir(parents=True)
        for number, image in enumerate(images):
            cv2.imwrite(str(tmp_path / "shapes" / kind / f"{number}.png"), image)
    pool = SegmenterPool(lambda frame_hw: FastSamSegmenter(SHAPES_NETWORK, frame_hw))
    report = evaluate_prompts(pool, find_label_maps(tmp_path), model="shapes-seg")
    for prompt in PROMPTS:
        assert report.values[prompt]["all"] > 0.7, prompt


def test_every_object_of_a_label_map_counts(tmp_path, pool):
    labels = np.zeros((96, 160), np.uint8)
    for number in range(20):  # more than `eval images` draws, and smaller
        y, x = divmod(number, 5)
        labels[5 + 24 * y : 8 + 24 * y, 5 + 30 * x : 9 + 30 * x] = number + 1
    for kind, pixels in (("images", np.repeat(labels[..., None] * 12, 3, -1)), ("masks", labels)):
        (tmp_path / "specks" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "specks" / kind / "a.png"), pixels)
    report = evaluate_prompts(pool, find_label_maps(tmp_path), model="lite")
    assert report.objects == {"all": 20, "small": 20}
    assert report.images == 1


def test_boxes_and_clicks_of_shapes_by_the_command_line(cli, data):
    options = ["--data", data / "coco.json", "--image-root", data / "shapes" / "images"]
    code, out, err = cli("eval", "prompts", *options, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["objects"]["all"] == 5  # the crowd too
    assert report["mean_iou"]["box"]["small"] > 0.7
    code, out, err = cli("eval", "prompts", "--data", data, "--images", 1)
    assert code == 0, err
    assert "5 clicks" in out


def write_wild(root: Path, data: Path) -> Path:
    """Two sets as SGinW has them: boxes of all objects, and of the objects of one class."""
    for name, categories in (("Both", (1, 2)), ("One", (1,))):
        valid = root / name / "valid"
        valid.mkdir(parents=True)
        for image in (data / "shapes" / "images").iterdir():
            shutil.copy(image, valid)
        shutil.copy(data / "coco.json", valid / "_annotations_min1cat.coco.json")
        boxes = [asdict(b) for b in boxes_of(data / "coco.json") if b.category_id in categories]
        (root / name / "detections.json").write_text(json.dumps(boxes))
    (root / "notes").mkdir()
    return root


def test_wild_is_the_mean_ap_of_the_sets(cli, data, tmp_path, pool):
    write_wild(tmp_path, data)
    code, out, err = cli("eval", "wild", "--data", tmp_path, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    aps = {name: found["mask_ap"]["ap"] for name, found in report["sets"].items()}
    assert aps.keys() == {"Both", "One"}
    assert report["mean_ap"] == pytest.approx(sum(aps.values()) / 2, abs=1e-4)
    read = load_coco(data / "coco.json")
    items = coco_images(read, data / "shapes" / "images")
    alone = evaluate_detections(pool, read, items, boxes_of(data / "coco.json"), model="lite")
    assert aps["Both"] == alone.values["ap"]
    assert aps["One"] < aps["Both"]  # the other class is not found
    code, out, _ = cli("eval", "wild", "--data", tmp_path)
    assert code == 0
    assert "mean" in out


@pytest.mark.parametrize(
    ("made", "word"),
    [
        ((), "as sets of SGinW do"),
        (("Cows/detections.json",), "has no annotations"),
        (("Cows/valid/_annotations.coco.json",), "has no detections.json"),
    ],
)
def test_wild_says_what_a_set_lacks(cli, tmp_path, made, word):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    code, out, err = cli("eval", "wild", "--data", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert word in err


def test_a_wild_set_that_cannot_be_evaluated_is_named(cli, data, tmp_path):
    (write_wild(tmp_path, data) / "One" / "detections.json").write_text("[]")
    code, out, err = cli("eval", "wild", "--data", tmp_path, "--json")
    assert (code, out) == (1, "")
    assert err.startswith("error: One: none of the detections")


def test_annotations_of_a_wild_set_are_those_with_a_category(tmp_path):
    valid = tmp_path / "Cows" / "valid"
    valid.mkdir(parents=True)
    for name in ("_annotations.coco.json", "_annotations_min1cat.coco.json"):
        (valid / name).write_text("{}")
    (tmp_path / "Cows" / "detections.json").write_text("[]")
    (found,) = find_wild_sets(tmp_path)
    assert found.annotations.name == "_annotations_min1cat.coco.json"


def test_published_rows_say_so_and_have_the_columns_of_their_table():
    assert {row.protocol for row in PUBLISHED} == set(Protocol)
    for row in PUBLISHED:
        assert row.origin.startswith("published: ")
        assert row.values
        assert row.values.keys() <= set(COLUMNS[row.protocol])
        assert all(20 < value < 100 for value in row.values.values())
    keys = [(row.protocol, row.data, row.model, row.origin) for row in PUBLISHED]
    assert len(set(keys)) == len(keys)


def test_papers_prints_what_is_published_without_a_model(cli):
    code, out, err = cli("eval", "papers", "--model", "nothing")
    assert (code, err) == (0, "")
    for part in ("TinySAM", "EfficientViT-SAM-XL1", "79.9 75.8 82.2 83.7", "48.9"):
        assert part in out
    assert "published: TinySAM, arXiv 2312.13789v3" in out
    assert "…" not in out  # 80 columns are enough
    assert MEASURED not in out


def test_papers_puts_measured_rows_beside(cli, data, tmp_path):
    write_wild(tmp_path, data)
    boxes = tmp_path / "Both" / "detections.json"
    options = ["--data", data / "coco.json", "--image-root", data / "shapes" / "images"]
    options += ["--detections", boxes, "--wild", tmp_path]
    code, out, err = cli("eval", "papers", *options, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    ours = {row["protocol"]: row for row in rows if row["origin"] == MEASURED}
    assert ours.keys() == {protocol.value for protocol in Protocol}
    assert len(rows) == len(PUBLISHED) + 3
    assert ours[Protocol.PROMPTS]["values"]["click1_small"] > 10  # percent
    assert ours[Protocol.MASK_AP]["values"]["ap"] > 50
    assert "2 sets" in ours[Protocol.WILD]["data"]
    assert {row["model"] for row in ours.values()} == {"lite"}
    assert not any("single masks" in row["data"] for row in rows)


def test_papers_says_which_rows_are_of_single_masks(cli, data):
    code, out, err = cli("eval", "papers", "--data", data, "--single-mask", "--json")
    assert (code, err) == (0, "")
    (ours,) = [row for row in json.loads(out) if row["origin"] == MEASURED]
    assert "single masks" in ours["data"]


@pytest.mark.parametrize(
    ("command", "options", "word"),
    [
        ("papers", ["--detections", "x.json"], "are for --data"),
        ("papers", ["--data", "{data}", "--detections", "x.json"], "needs --data FILE.json"),
        ("prompts", ["--data", "x.json"], "needs --image-root"),
        ("images", ["--data", "{data}", "--single-mask"], "is for --detections"),
        ("images", ["--data", "{data}", "--detections", "x.json"], "needs --data FILE.json"),
    ],
)
def test_bad_options_are_one_sentence(cli, data, tmp_path, monkeypatch, command, options, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("eval", command, *(o.format(data=data) for o in options))
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert word in err
