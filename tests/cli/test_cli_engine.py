"""`--engine` and `--device`: on every command that segments, the same way, refused before work."""

import json
import sys

import cv2
import numpy as np
import pytest
import typer

from maskstream.pipeline.cli import app
from maskstream.pipeline.config import load_config
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter
from maskstream.pipeline.store import MaskStore
from maskstream.trackers.iou import box_iou
from maskstream.ui.editing.clicker import Segmenters
from tests.support.media import moving_shapes, write_video

SIZE_HW = (90, 160)
SEGMENTING = {
    "run",
    "batch",
    "live",
    "everything",
    "ui",
    "eval images",
    "eval prompts",
    "eval wild",
    "eval papers",
    "eval video",
    "eval detector",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(4, SIZE_HW, shapes=2, seed=1)


@pytest.fixture(scope="module")
def clip(shapes, tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", shapes[0])


@pytest.fixture(scope="module")
def data(shapes, tmp_path_factory):
    """A folder with one image and its label map."""
    folder = tmp_path_factory.mktemp("data")
    for kind, pixels in (("images", shapes[0][0][..., ::-1]), ("masks", shapes[1][0])):
        (folder / "shapes" / kind).mkdir(parents=True)
        cv2.imwrite(str(folder / "shapes" / kind / "one.png"), pixels.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def image(data):
    return data / "shapes/images/one.png"


def commands(group, path=()):
    """Every command of the command line: its words, and the names of its parameters."""
    if not hasattr(group, "commands"):
        yield " ".join(path), {parameter.name for parameter in group.params}
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def test_every_command_that_segments_has_both_options():
    known = dict(commands(typer.main.get_command(app)))
    assert {name for name, has in known.items() if {"engine", "device"} <= has} == SEGMENTING
    assert not any(("engine" in has) != ("device" in has) for has in known.values())


def asked(command, clip, data, out):
    """Arguments with which a command would segment something."""
    return {
        "run": ("run", clip, "-o", out / "a.zarr"),
        "batch": ("batch", clip, "-o", out / "b"),
        "live": ("live", clip, "--quiet"),
        "everything": ("everything", data / "shapes/images/one.png"),
        "ui": ("ui", "--sessions", out / "sessions"),
        "eval images": ("eval", "images", "--data", data),
        "eval prompts": ("eval", "prompts", "--data", data),
        "eval papers": ("eval", "papers", "--data", data),
        "eval video": ("eval", "video", "--generated", "--sequences", "pan"),
        "eval detector": ("eval", "detector", "--sequences", "pan"),
    }[command]


@pytest.mark.parametrize("command", sorted(SEGMENTING - {"eval wild"}))
@pytest.mark.parametrize(
    ("missing", "options", "said"),
    [
        ("onnxruntime", (), "pip install 'maskstream[onnx]'"),
        ("onnx", (), "pip install 'maskstream[onnx]'"),
        (None, ("--device", "cuda"), "no provider for NVIDIA GPUs"),
    ],
)
def test_what_the_engine_lacks_is_said_at_once(
    cli, clip, data, tmp_path, monkeypatch, command, missing, options, said
):
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    arguments = asked(command, clip, data, tmp_path)
    code, _, err = cli(*arguments, "--engine", "onnxruntime", *options)
    assert code in (1, 2)
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("command", ["run", "everything", "live", "ui"])
def test_an_unknown_engine_is_answered_with_those_that_there_are(
    cli, clip, data, tmp_path, command
):
    code, _, err = cli(*asked(command, clip, data, tmp_path), "--engine", "tflite")
    assert code == 1
    assert "engine: Input should be 'openvino', 'onnxruntime' or 'auto'" in err


def test_everything_mode_finds_the_same_objects_with_both(cli, image, cache):
    boxes = {}
    for engine in ("openvino", "onnxruntime"):
        code, out, err = cli("everything", image, "--json", "--engine", engine)
        assert code == 0, err
        boxes[engine] = np.array([each["box_xyxy"] for each in json.loads(out)["objects"]])
    overlap = box_iou(boxes["openvino"], boxes["onnxruntime"])
    assert min(overlap.shape) >= 2
    assert overlap.max(1).mean() > 0.7
    assert (cache / "onnx").is_dir()


def test_live_and_batch_run_in_onnx_runtime(cli, clip, tmp_path, cache):
    code, _, err = cli("live", clip, "-o", tmp_path / "live.zarr", "--engine", "onnxruntime")
    assert code == 0, err
    options = ("--engine", "onnxruntime", "--workers", "1", "--quiet")
    code, _, err = cli("batch", clip, "-o", tmp_path / "batch", *options)
    assert code == 0, err
    for store in (tmp_path / "live.zarr", *(tmp_path / "batch").glob("**/*.zarr")):
        with MaskStore(store) as opened:
            assert opened.attributes["config"]["engine"] == "onnxruntime"
    assert (cache / "onnx").is_dir()


def test_the_page_answers_clicks_with_the_engine_that_is_configured(cache):
    segmenters = Segmenters(load_config(overrides=["engine=onnxruntime"]))
    segmenter, _ = segmenters.of_size(SIZE_HW)
    assert isinstance(segmenter, OnnxSegmenter)


def test_a_checkpoint_is_evaluated_in_torch_only(cli, data, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"weights")
    options = ("--data", data, "--model", tmp_path / "x.pt")
    code, _, err = cli("eval", "prompts", *options, "--engine", "onnxruntime")
    assert (code, "'export-model'" in err) == (1, True)
