"""Every script of `examples/` runs as its docstring says, and so do the notebook's cells."""

from __future__ import annotations

import ast
import inspect
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import maskstream
from maskstream.pipeline.models.export_onnx import export_onnx
from maskstream.pipeline.models.find import EMBEDDED
from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
COUNT, SIZE_HW = 10, (120, 200)


@pytest.fixture(scope="module")
def frames():
    """RGB [T, H, W, 3] and the numbers of the shapes [T, H, W]."""
    return moving_shapes(COUNT, SIZE_HW, shapes=2, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frames):
    """A folder with `clip.mp4`."""
    place = tmp_path_factory.mktemp("examples")
    write_video(place / "clip.mp4", frames[0])
    return place


@pytest.fixture
def run(monkeypatch, capsys, folder):
    """Run a script of `examples/` in `folder`; gives what it printed."""
    monkeypatch.chdir(folder)

    def call(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def store(folder, frames):
    """A store of the clip with the last shape as object 1, made by the example of a click."""
    rows, columns = np.nonzero(frames[1][0] == 2)
    x, y = int(columns.mean()), int(rows.mean())
    main = runpy.run_path(str(EXAMPLES / "track_click.py"))["main"]
    main(str(folder / "clip.mp4"), str(x), str(y), str(folder / "clip.zarr"))
    return folder / "clip.zarr"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short_and_say_how_to_run_them(script):
    text = script.read_text("utf-8")
    told = ast.get_docstring(ast.parse(text))
    assert f"python examples/{script.name} " in told
    assert 15 <= len(text.splitlines()) <= 44
    assert script.stem in Path(__file__).read_text("utf-8")
    page = (ROOT / "docs/guide/examples.md").read_text("utf-8")
    assert f'--8<-- "examples/{script.name}"' in page


def test_track_click(store):
    with maskstream.MaskStore(store) as masks:
        assert masks.complete
        assert [(seen.id, seen.frames_seen) for seen in masks.objects()] == [(1, COUNT)]
    assert store.with_name("clip_overlay.mp4").is_file()


def test_detector_boxes(run, folder):
    (folder / "boxes.csv").write_text("0,5,20,20,80,90\n4,9,60,30,160,110\n")
    told = [line.split() for line in run("detector_boxes", "clip.mp4", "boxes.csv").splitlines()]
    first = {number: index for index, number, *_ in reversed(told)}
    assert first == {"5": "0", "9": "4"}


def test_live_callback(run):
    told = run("live_callback", "clip.mp4", 60)
    assert "pixels by object" in told
    assert "latency" in told.splitlines()[-1]


def test_store_arrays(run, store):
    told = run("store_arrays", store)
    by_numpy, by_dask = told.splitlines()[:2]
    assert by_numpy.startswith("numpy: {1: ")
    assert by_dask == by_numpy.replace("numpy", "dask")


def test_alpha_for_editor(run, store):
    assert f"clip.mov: {COUNT} frames" in run("alpha_for_editor", store, "clip.mov", 1)


def test_custom_source(run, folder, frames):
    (folder / "arrays").mkdir()
    for number, time_ms in enumerate((0, 40, 100)):
        np.save(folder / "arrays" / f"{time_ms}.npy", frames[0][number])
    told = run("custom_source", "arrays").splitlines()
    assert [line.split()[:2] for line in told] == [["0", "0.0"], ["1", "0.04"], ["2", "0.1"]]


def test_many_videos_goes_on_where_it_was(run, folder, frames):
    (folder / "videos").mkdir()
    write_video(folder / "videos/a.mp4", frames[0][:3])
    (folder / "videos/broken.mp4").write_bytes(b"no video")
    told = run("many_videos", "videos", "stores")
    assert told.startswith("a.mp4: ")
    written = (folder / "stores/a.zarr/zarr.json").stat().st_mtime_ns
    assert run("many_videos", "videos", "stores") == told
    assert (folder / "stores/a.zarr/zarr.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("place", ["laptop", "machine"])
def test_batch_sh_runs_many_videos(place, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["sh", EXAMPLES / "batch.sh", place, "clip.mp4", place]
    told = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert MaskStore(folder / place / "clip.zarr").complete
    assert (folder / place / "clip.coco.json").exists() == (place == "machine")


def test_onnx_click_runs_in_a_process_without_this_package(folder, frames):
    """In a fresh interpreter that cannot import maskstream, torch or OpenVINO."""
    export_onnx("lite", folder / "lite-onnx")
    picture, truth = frames[0][0], frames[1][0] == 2
    cv2.imwrite(str(folder / "picture.png"), picture[..., ::-1])
    rows, columns = np.nonzero(truth)
    x, y = int(columns.mean()), int(rows.mean())
    script = EXAMPLES / "onnx_click.py"
    code = (
        "import runpy, sys\n"
        "for name in ('maskstream', 'torch', 'openvino'): sys.modules[name] = None\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [script, "lite-onnx", "picture.png", x, y, "mask.png"]
    call = f"import sys; sys.argv = {[str(a) for a in arguments]}\n{code}"
    told = subprocess.run(
        [sys.executable, "-I", "-c", call], cwd=folder, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("mask.png: iou ")
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    predictor = maskstream.Predictor("lite")
    predictor.set_image(picture)
    own = predictor.predict(points=[(x, y)]).masks[0]
    assert (mask & own).sum() / (mask | own).sum() > 0.95


def test_quantize_checkpoint(run, folder, monkeypatch):
    """All but quantizing itself, which takes minutes and has tests of its own."""
    import torch

    from maskstream.pipeline.quantization import quantize as room
    from maskstream.pipeline.segmenter.sam import Sam, build

    state = {"config": {"model": "lite"}, "average": build("lite").state_dict()}
    torch.save(state, folder / "lite.pt")
    call = inspect.signature(room.quantize)

    def quantize(*values, **options):
        asked = call.bind(*values, **options).arguments
        assert isinstance(asked["model"], Sam)
        assert {image.shape for image in asked["images"]} == {(*SIZE_HW, 3)}
        assert asked["gate"].trained
        return SimpleNamespace(comparison=SimpleNamespace(mask_iou=0.98))

    monkeypatch.setattr(room, "quantize", quantize)
    monkeypatch.setattr(room, "write_folder", lambda made, to: copytree(EMBEDDED / "lite", to))
    told = run("quantize_checkpoint", "lite.pt", "clip.mp4", "lite-int8")
    assert "mask IoU with FP32 0.98" in told
    assert "lite opens for frames of 1280x720" in told


def test_cells_of_the_notebook_run():
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102
    assert min(names["areas"].values()) > 0.5 * np.pi * 40**2
    assert names["masks"].complete
    assert list((names["folder"] / "davis").rglob("*.png"))
    assert names["tint"](names["first"], names["answer"].masks[0])._repr_png_()
