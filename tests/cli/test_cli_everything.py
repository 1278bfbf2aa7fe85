"""`everything` and `bench everything` as a user meets them."""

import json

import cv2
import numpy as np
import pytest

from maskstream.pipeline.sources.mask_images import read_label_map
from tests.support.media import moving_shapes, write_video

FEW = ["--points-per-side", 8]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A picture, a folder of two, a clip, and what is none of them."""
    folder = tmp_path_factory.mktemp("media")
    frames, masks = moving_shapes(6, (90, 160), shapes=2, seed=1)
    write_video(folder / "clip.mp4", frames)
    for place in ("pictures", "nothing", "data/shapes/images", "data/shapes/masks"):
        (folder / place).mkdir(parents=True)
    for name in ("one.png", "pictures/1.png", "pictures/5.png", "data/shapes/images/a.png"):
        cv2.imwrite(str(folder / name), frames[0][..., ::-1])
    cv2.imwrite(str(folder / "data/shapes/masks/a.png"), masks[0])
    (folder / "text.mp4").write_text("this is not a video")
    return folder


def test_an_image_gives_a_label_map_and_an_overlay(cli, media, tmp_path):
    output, overlay = tmp_path / "labels.png", tmp_path / "overlay.png"
    image = media / "one.png"
    options = ["--json", "--points-per-side", 16]
    code, out, err = cli("everything", image, "-o", output, "--overlay", overlay, *options)
    assert (code, err) == (0, "")
    line = json.loads(out)
    assert line["frame"] == 0
    assert 16 < line["prompts"] <= 256
    labels = read_label_map(output)
    assert labels.shape == (90, 160)
    assert set(np.unique(labels)) - {0} == {o["id"] for o in line["objects"]}
    for found in line["objects"]:
        x0, y0, x1, y1 = map(int, found["box_xyxy"])
        assert (labels[y0:y1, x0:x1] == found["id"]).sum() == found["area"] > 0
    changed = (cv2.imread(str(overlay)) != cv2.imread(str(image))).any(2)
    assert changed[labels > 0].mean() > 0.9


def test_the_plain_grid_asks_every_point_and_says_so(cli, media):
    code, out, _ = cli("everything", media / "one.png", "--grid", "plain", *FEW)
    assert code == 0
    assert "64 prompts" in out


@pytest.mark.parametrize(
    ("source", "options", "names"),
    [
        ("clip.mp4", ["--start", 1, "--stride", 3], ["000001.png", "000004.png"]),
        ("pictures", [], ["000001.png", "000005.png"]),
        ("clip.mp4", ["--end", 1], ["000000.png"]),
    ],
)
def test_frames_keep_the_sources_numbers(cli, media, tmp_path, source, options, names):
    code, out, err = cli("everything", media / source, "-o", tmp_path / "out", *options, *FEW)
    assert code == 0, err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    assert len(out.splitlines()) == len(names)


def test_one_chosen_frame_of_a_video_is_one_file(cli, media, tmp_path):
    output = tmp_path / "third.png"
    code, out, _ = cli(
        "everything", media / "clip.mp4", "--start", 3, "--end", 4, "-o", output, *FEW
    )
    assert code == 0
    assert out.startswith("frame 3: ")
    assert output.is_file()


def test_what_is_there_is_kept_unless_it_may_be_replaced(cli, media, tmp_path):
    output = tmp_path / "labels.png"
    output.write_text("mine")
    code, _, err = cli("everything", media / "one.png", "-o", output, *FEW)
    assert code == 1
    assert "--overwrite" in err
    assert output.read_text() == "mine"
    assert cli("everything", media / "one.png", "-o", output, "--overwrite", *FEW)[0] == 0
    assert read_label_map(output).shape == (90, 160)


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("missing.png", [], "no file"),
        ("text.mp4", [], "text.mp4"),
        ("nothing", [], "holds no images"),
        ("one.png", ["--grid", "fine"], "hierarchical, plain"),
        ("one.png", ["--points-per-side", 30], "multiple of 4"),
        ("one.png", ["--model", "nonsense"], "no model 'nonsense'"),
        ("one.png", ["-o", "/proc/a.png", *FEW], "cannot be written"),
        ("one.png", ["-o", "x", "--overlay", "x"], "overlap"),
        ("clip.mp4", ["-o", "a.png"], "give a folder"),
        ("clip.mp4", ["--overlay", "a.mp4"], "cannot hold images"),
    ],
)
def test_bad_input_is_one_sentence(cli, media, tmp_path, monkeypatch, source, options, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("everything", media / source, *options)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert word in err
    assert not list(tmp_path.iterdir())


def test_bench_prints_both_grids(cli, media):
    options = ["--data", media / "data", "--held-out", 0, *FEW]
    code, out, _ = cli("bench", "everything", *options, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["pictures"], report["objects"]) == (1, 2)
    assert report["plain"]["prompts"] == 64 >= report["hierarchical"]["prompts"]
    assert 0 <= report["plain"]["recall"] <= 1
    code, out, _ = cli("bench", "everything", *options, "--iou-min", 0.5)
    assert code == 0
    assert "hierarchical" in out
    assert "points of recall lost" in out


def test_bench_without_objects_is_a_sentence(cli, media, tmp_path):
    code, _, err = cli("bench", "everything", "--data", tmp_path)
    assert code == 1
    assert "no <source>/images" in err
