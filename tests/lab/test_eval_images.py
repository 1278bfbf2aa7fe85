"""`eval images` on label maps: the protocol, the report, bad data as one sentence."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.evaluation.clicks import Clicks, first_clicks, next_clicks
from maskstream.pipeline.lab.evaluation.examples import (
    Example,
    draw_objects,
    shape_order,
    spread,
)
from maskstream.pipeline.lab.evaluation.images import evaluate_images
from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
from maskstream.pipeline.lab.evaluation.scores import MEASURES, ZOOM_MEASURES, score_image
from maskstream.pipeline.lab.evaluation.sheets import AnswerSheets
from maskstream.pipeline.lab.training.data import find_sources
from maskstream.pipeline.models import pool as segmenters
from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    PAD,
    POSITIVE,
)
from maskstream.pipeline.segmenter.model import Decoded, Features, ModelCard, PromptBatch
from tests.support.media import moving_shapes
from tests.support.scripted import CARD, Scripted

ROOT = Path(__file__).parents[2]
REQUIRED = {*MEASURES, "everything_recall"}


def write(folder: Path, name: str, image: np.ndarray, masks: np.ndarray) -> None:
    for kind, pixels in (("images", image[..., ::-1]), ("masks", masks)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / kind / f"{name}.png"), pixels)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sources of shapes, and one whose only object is too small to ask for."""
    root = tmp_path_factory.mktemp("data")
    frames, masks = moving_shapes(2, (90, 160), shapes=2, seed=1)
    write(root / "first", "a", frames[0], masks[0])
    write(root / "first", "b", frames[1][:88], masks[1][:88])
    write(root / "second", "a", frames[1], masks[1].astype(np.uint16) * 300)
    speck = np.zeros((90, 160), np.uint8)
    speck[3:6, 3:7] = 1
    write(root / "specks", "a", frames[0], speck)
    return root


@pytest.fixture(scope="module")
def pool() -> SegmenterPool:
    return SegmenterPool(segmenter_opener(PipelineConfig()))


def square(top: int, left: int, side: int, size_hw=(40, 60)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_json_has_the_measures_by_source_and_their_macro(cli, data):
    code, out, err = cli("eval", "images", "--data", data, "--json", "--images", 1)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report.keys() >= {"macro", "sources"}
    assert report["macro"].keys() >= REQUIRED
    assert report["sources"].keys() == {"first", "second"}
    assert report["left_out"] == ["specks"]
    assert report["sources"]["first"]["images"] == 1
    assert report["sources"]["first"]["objects"] == 2
    for name, value in report["macro"].items():
        values = [source[name] for source in report["sources"].values() if name in source]
        assert value == pytest.approx(np.mean(values), abs=1e-4)
        assert 0 <= value <= 1
    assert report["macro"]["box"] > 0.7
    assert report["macro"]["oracle3"] >= report["macro"]["click1"]


def test_table_names_what_was_left_out_and_torch_is_not_imported(data):
    code = (
        "import sys; from maskstream.pipeline.cli import app; app(standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    options = ["--data", data, "--no-everything", "--images", "1", "--held-out", "50"]
    ended = subprocess.run(
        [sys.executable, "-c", code, "eval", "images", *map(str, options)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    assert "specks" in ended.stdout
    assert "recall" not in ended.stdout
    assert "…" not in ended.stdout


def test_sheets_show_the_best_and_the_worst_of_every_source(tmp_path):
    sheets = AnswerSheets()
    rgb = np.zeros((40, 60, 3), np.uint8)
    truth = np.stack([square(4, 4, 12), square(20, 30, 12)])
    example = Example(rgb, truth)
    for source in ("one", "other"):
        look = sheets.of(source, example)
        for measure in ("box", "click1", "click2"):
            look(measure, np.stack([truth[0], square(0, 0, 4)]), np.array([1.0, 0.0]))
    files = sheets.write(tmp_path / "sheets")
    names = {"box-best.jpg", "box-worst.jpg", "click1-best.jpg", "click1-worst.jpg"}
    assert {file.name for file in files} == names
    best, worst = (cv2.imread(str(tmp_path / "sheets" / f"box-{n}.jpg")) for n in ("best", "worst"))
    assert best.shape == worst.shape
    assert best.shape[1] > 2 * best.shape[0]  # two sources side by side, and room for more
    center = best.shape[0] // 2
    assert best[center, center].min() > 20  # tinted: the answer is where the object is
    assert worst[center, center].max() < 20


def test_sheets_by_the_command_line(cli, data, tmp_path):
    folder = tmp_path / "sheets"
    images = ("--images", 1, "--no-everything", "--sheets", folder)
    code, *_ = cli("eval", "images", "--data", data, *images)
    assert code == 0
    assert len(list(folder.iterdir())) == 4


def test_results_do_not_depend_on_the_selection(pool, data):
    """The same image counts the same alone and among others of another size."""
    both = evaluate_images(pool, find_label_maps(data), model="lite", everything=False)
    one = evaluate_images(pool, find_label_maps(data, images=1), model="lite", everything=False)
    assert both.sources["second"] == one.sources["second"]
    assert both.sources["first"].images == 2
    assert "everything_recall" not in both.macro


def test_a_segmenter_shared_by_sizes_answers_as_one_of_its_own(pool, data):
    (_, item) = next(s for s in find_label_maps(data) if s.name == "first").items
    example = item.load()
    assert example.rgb.shape == (88, 160, 3)
    pool.for_size((90, 160))
    shared = score_image(pool.for_size((88, 160)), example, everything=False)
    own = score_image(segmenter_opener(PipelineConfig())((88, 160)), example, everything=False)
    for name in MEASURES:
        np.testing.assert_array_equal(shared.ious[name], own.ious[name])


def test_protocol_of_the_prompts():
    """Clicks add up, the answer before is the mask prompt, the first answer is the best rated."""
    truth = np.stack([square(8, 16, 16, (32, 64)), square(8, 40, 16, (32, 64))])
    geometry = InputGeometry.fit((32, 64), 64, 32)

    def logits(mask: np.ndarray) -> np.ndarray:
        return np.where(mask[2::4, 2::4], 5, -5).astype(np.float32)

    answers = np.stack([logits(m) for m in (truth[0], truth[0], truth[1], ~truth[1])])
    segmenter = Scripted(answers, geometry)
    example = Example(np.zeros((32, 64, 3), np.uint8), truth)
    scores = score_image(segmenter, example, everything=False)

    box, *clicks = segmenter.asked
    np.testing.assert_array_equal(box.labels, [[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]] * 2)
    np.testing.assert_array_equal(box.xy.reshape(2, 4), [[16, 8, 32, 24], [40, 8, 56, 24]])
    assert [prompts.labels.shape for prompts in clicks] == [(2, n + 1) for n in range(1, 6)]
    assert all((prompts.labels[:, -1] == PAD).all() for prompts in clicks)
    assert clicks[0].mask is None
    np.testing.assert_array_equal(clicks[1].mask[0, 0], answers[2])
    np.testing.assert_array_equal(clicks[2].mask[0, 0], answers[0])
    np.testing.assert_array_equal(clicks[4].xy[:, :4], clicks[3].xy[:, :4])
    assert clicks[1].labels[0, 1] == POSITIVE  # the first answer missed the first object

    values = {name: np.round(ious, 1).tolist() for name, ious in scores.ious.items()}
    assert values.keys() == set(MEASURES)
    assert values["box"] == values["click2"] == values["click5"]
    assert values["box"][0] > 0.7 > values["box"][1] == 0
    assert values["click1"][1] > 0.7 > values["click1"][0] == 0
    assert min(values["oracle3"]) > 0.7
    assert scores.areas.tolist() == [256, 256]
    assert scores.found is None


@dataclass
class Bright:
    """Answers any prompt with the bright pixels of the picture, but no more than it resolves."""

    geometry: InputGeometry
    card: ModelCard = CARD

    def encode(self, frame) -> Features:
        gray = frame.rgb(self.geometry.valid_hw).mean(-1).astype(np.float32)
        return Features({"logits": gray[2::4, 2::4] - 127})

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        masks = np.tile(features.tensors["logits"], (len(prompts), 4, 1, 1))
        return Decoded(masks, np.ones((len(prompts), 4), np.float32))


def test_zoom_asks_for_small_objects_in_a_crop_around_them():
    small, large = square(30, 60, 6, (64, 96)), square(2, 2, 40, (64, 96))
    image = np.zeros((64, 96, 3), np.uint8)
    image[small] = 255
    asked = []

    def zoom(size_hw) -> Bright:
        asked.append(size_hw)
        return Bright(InputGeometry.fit(size_hw, 64, 32))

    whole = Bright(InputGeometry.fit((64, 96), 64, 32))
    example = Example(image, np.stack([small, large]))
    scores = score_image(whole, example, everything=False, zoom=zoom)
    assert scores.zoomed is not None
    values = {name: ious.tolist() for name, ious in scores.zoomed.items()}
    assert values.keys() == set(ZOOM_MEASURES)
    assert asked[0] == (15, 15)  # 2.5 times the box
    (without,), (again,) = values["zoom_box_without"], values["zoom_box"]
    assert without == scores.ious["box"][0] < 0.7 < 0.8 < again
    assert values["zoom_click1"][0] >= values["zoom_click1_without"][0] == without
    assert score_image(whole, example, everything=False).zoomed is None


def test_zoom_is_reported_for_sources_with_small_objects(cli, data):
    options = ("--data", data, "--json", "--images", 1, "--no-everything", "--zoom")
    code, out, err = cli("eval", "images", *options)
    assert (code, err) == (0, "")
    report = json.loads(out)
    for source in report["sources"].values():
        assert (source["small_objects"] > 0) == ("zoom_box" in source)


@pytest.mark.parametrize(
    ("mask", "xy"),
    [
        (square(10, 20, 9), (24.5, 14.5)),
        (square(0, 0, 9), (4.5, 4.5)),  # the image's edge is a border too
        (square(2, 2, 3) | square(20, 30, 11), (35.5, 25.5)),
    ],
)
def test_first_click_is_farthest_from_the_border(mask, xy):
    clicks = first_clicks(mask[None])
    assert clicks.xy.tolist() == [[list(xy)]]
    assert clicks.labels.tolist() == [[POSITIVE]]


@pytest.mark.parametrize(
    ("answer", "xy", "label"),
    [
        (np.zeros((40, 60), bool), (17.5, 17.5), POSITIVE),
        (square(10, 10, 15) | square(20, 40, 11), (45.5, 25.5), NEGATIVE),
        (square(10, 10, 15) & ~square(10, 10, 9), (14.5, 14.5), POSITIVE),
        (square(13, 13, 9) | square(28, 40, 11), (45.5, 33.5), NEGATIVE),
        (square(10, 10, 15), (17.5, 17.5), POSITIVE),  # nothing is wrong
    ],
)
def test_next_click_is_deepest_in_what_is_wrong(answer, xy, label):
    clicks = next_clicks(answer[None], square(10, 10, 15)[None])
    assert clicks.xy.tolist() == [[list(xy)]]
    assert clicks.labels.tolist() == [[label]]


def test_clicks_add_up():
    one = Clicks(np.zeros((3, 1, 2), np.float32), np.ones((3, 1), np.float32))
    assert one.and_then(one).xy.shape == (3, 2, 2)


def test_objects_are_drawn_by_the_images_name_alone():
    areas = [5, *range(10, 30)]
    drawn = draw_objects(areas, 10_000, Path("x/photo.jpg"))
    assert len(drawn) == 8
    assert 0 not in drawn  # under 0.1 % of the image
    np.testing.assert_array_equal(drawn, draw_objects(areas, 10_000, Path("y/photo.png")))
    assert drawn.tolist() != draw_objects(areas, 10_000, Path("x/other.jpg")).tolist()
    assert draw_objects(areas, 100_000, Path("x/photo.jpg")).tolist() == []


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(None, range(10)), (20, range(10)), (1, [5]), (2, [2, 7]), (5, range(1, 10, 2))],
)
def test_spread(count, chosen):
    assert spread(range(10), count) == tuple(chosen)


def test_held_back_images_are_those_of_training(tmp_path):
    image, masks = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)
    for number in range(12):
        write(tmp_path / "photos", f"house{number // 2}_crop_{number % 2}", image, masks)
    (found,) = find_label_maps(tmp_path, held_out_percent=40)
    (source,) = find_sources(tmp_path, held_out_percent=40)
    assert [item.paths for item in found.items] == list(source.held_out)
    assert 0 < len(found.items) < 12


def test_pool_opens_one_segmenter_for_an_input_size_and_keeps_a_few(monkeypatch):
    monkeypatch.setattr(segmenters, "KEPT", 2)
    opened = []

    def open_one(frame_hw):
        opened.append(frame_hw)
        return Scripted(np.zeros(0), InputGeometry.fit(frame_hw, 64, 32))

    pool = SegmenterPool(open_one)
    for size_hw in ((64, 64), (32, 64), (30, 64), (128, 128), (64, 32), (30, 64), (64, 64)):
        geometry = pool.for_size(size_hw).geometry
        assert geometry == InputGeometry.fit(size_hw, 64, 32)
    assert opened == [(64, 64), (32, 64), (64, 32), (30, 64), (64, 64)]


def test_each_input_size_is_opened_once_whatever_the_order_of_the_images(tmp_path, monkeypatch):
    """So memory does not grow with the sizes of a data set, and images wait for no reopening."""
    monkeypatch.setattr(segmenters, "KEPT", 1)
    sizes = ((64, 64), (32, 64), (64, 32))
    for number, (height, width) in enumerate(2 * sizes):
        masks = np.ones((height, width), np.uint8)
        write(tmp_path / "ab"[number % 2], str(number), np.zeros((height, width, 3)), masks)
    opened = []

    def open_one(frame_hw):
        opened.append(frame_hw)
        return Bright(InputGeometry.fit(frame_hw, 64, 32))

    sets, seen = find_label_maps(tmp_path), []
    pool = SegmenterPool(open_one)
    report = evaluate_images(pool, sets, model="x", everything=False, on_image=seen.append)
    assert sorted(opened) == sorted(sizes)
    assert sorted(seen) == list("aaabbb")
    assert [source.images for source in report.sources.values()] == [3, 3]
    assert report.peak_mb > 0


def test_images_are_visited_by_shape_and_else_in_their_order():
    assert shape_order([(40, 20), (20, 40), (400, 200), (10, 20)]) == [1, 3, 0, 2]


def bad_folders(root: Path) -> dict[str, tuple[Path, str]]:
    """Folders that cannot be evaluated, by name, and a word of the sentence that says why."""
    frames, masks = moving_shapes(1, (90, 160), shapes=2, seed=1)
    image, labels = frames[0], masks[0]
    for name in ("no_mask", "broken_image", "broken_mask", "sizes", "rgb_mask"):
        write(root / name / "photos", "a", image, labels)
    (root / "no_mask/photos/masks/a.png").unlink()
    (root / "broken_image/photos/images/a.png").write_bytes(b"not a picture")
    (root / "broken_mask/photos/masks/a.png").write_bytes(b"")
    write(root / "sizes" / "photos", "a", image, labels[:80])
    write(root / "rgb_mask" / "photos", "a", image, np.repeat(labels[..., None], 3, -1))
    write(root / "nothing_labeled" / "photos", "a", image, 0 * labels)
    (root / "empty" / "photos" / "images").mkdir(parents=True)
    (root / "no_source" / "other").mkdir(parents=True)
    return {
        "missing": (root / "missing", "no folder"),
        "no source": (root / "no_source", "no <source>/images folder"),
        "a source": (root / "sizes" / "photos", "give the folder above"),
        "empty": (root / "empty", "holds no images"),
        "no mask": (root / "no_mask", "no label map"),
        "broken image": (root / "broken_image", "cannot be decoded"),
        "broken mask": (root / "broken_mask", "cannot be decoded"),
        "sizes": (root / "sizes", "160x80, but"),
        "rgb mask": (root / "rgb_mask", "a color image"),
        "nothing labeled": (root / "nothing_labeled", "none of the images has an object"),
    }


def test_bad_data_are_one_sentence(cli, tmp_path):
    for name, (folder, word) in bad_folders(tmp_path).items():
        code, out, err = cli("eval", "images", "--data", folder, "--json")
        assert (code, out) == (1, ""), name
        assert err.startswith("error: "), name
        assert word in err, name
        assert err.count("\n") == 1, name


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "nothing"], "there is no model"),
        (["--device", "abacus"], "device"),
        (["--image-root", "."], "needs --data FILE.json"),
    ],
)
def test_bad_options_are_one_sentence(cli, data, options, word):
    code, _, err = cli("eval", "images", "--data", data, *options)
    assert code == 1
    assert word in err


def test_checkpoint_runs_in_torch_as_it_is(tmp_path, data):
    """Random weights: what counts is that the same protocol runs on a training checkpoint."""
    import torch

    from maskstream.pipeline.segmenter.sam import build

    file = tmp_path / "step.pt"
    torch.save({"average": build("lite").state_dict(), "config": {"model": "lite"}}, file)
    threads = torch.get_num_threads()
    try:
        pool = SegmenterPool(segmenter_opener(PipelineConfig(model=str(file))))
        sets = [replace(s, items=s.items[:1]) for s in find_label_maps(data) if s.name == "first"]
        report = evaluate_images(pool, sets, model=str(file), everything=False)
    finally:
        torch.set_num_threads(threads)
    assert report.macro.keys() >= set(MEASURES)
