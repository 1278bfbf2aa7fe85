"""ONNX Runtime as the engine: same answers as OpenVINO's, providers by device, clear errors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskstream
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import MissingExtraError, ModelError
from maskstream.pipeline.models.export_onnx import export_onnx
from maskstream.pipeline.models.find import content_hash, find_model
from maskstream.pipeline.models.onnx_folder import onnx_folder
from maskstream.pipeline.models.open import engine_of, open_model, open_segmenter
from maskstream.pipeline.segmenter.model import PromptBatch
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter, choose_providers
from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video

SIZE_HW = (90, 160)
GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("models") / "lite-onnx"
    export_onnx("lite", made)
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(6, SIZE_HW, shapes=2, seed=1)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_predictor_answers_as_with_openvino(folder, shapes):
    (image, *_), (labels, *_) = shapes
    rows, columns = np.nonzero(labels == 2)
    points = [(columns.mean(), rows.mean())]
    answers = []
    for model in ("lite", folder):
        predictor = maskstream.Predictor(model, threads=1)
        predictor.set_image(image)
        first = predictor.predict(points=points)
        refined = predictor.predict(points=points, mask=first.logits[0])
        answers.append((first.masks[0], refined.masks[0]))
    for by_openvino, by_onnx in zip(*answers, strict=True):
        assert iou(by_openvino, by_onnx) > 0.97


def test_many_prompts_are_answered_in_batches_as_one_by_one(folder, shapes):
    segmenter = OnnxSegmenter(folder, SIZE_HW, threads=1)
    features = segmenter.encode_rgb(_scaled(segmenter, shapes[0][0]))
    points = np.random.default_rng(0).uniform(0, 90, (11, 1, 2))
    together = segmenter.decode(features, PromptBatch.points(points))
    alone = segmenter.decode(features, PromptBatch.points(points[9:10]))
    np.testing.assert_allclose(together.masks[9:10], alone.masks, atol=1e-2)
    assert together.masks.shape == (11, 4, *segmenter.geometry.grid_hw)


def _scaled(segmenter, image):
    height, width = segmenter.geometry.valid_hw
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    ("device", "available", "chosen"),
    [
        ("cpu", GPU, GPU[2:]),
        ("auto", GPU, GPU),
        ("auto", GPU[1:], GPU[1:]),
        ("auto", GPU[2:], GPU[2:]),
        ("cuda", GPU[1:], GPU[1:]),
    ],
)
def test_providers_are_chosen_by_device(device, available, chosen, cache):
    found = choose_providers(device, available)
    assert [name for name, _ in found] == chosen
    for name, options in found:
        if name == GPU[0]:
            assert options["trt_engine_cache_path"] == str(cache / "tensorrt")


def test_cuda_without_a_provider_is_refused():
    with pytest.raises(ModelError, match="onnxruntime-gpu"):
        choose_providers("cuda", GPU[2:])


def test_a_folder_tells_its_engine_and_the_engine_can_be_chosen(folder):
    lite = find_model("lite")
    assert engine_of(PipelineConfig(), lite) == "openvino"
    assert engine_of(PipelineConfig(), folder) == "onnxruntime"
    assert engine_of(PipelineConfig(engine="onnxruntime"), lite) == "onnxruntime"
    with pytest.raises(ModelError, match="the engine onnxruntime runs"):
        open_segmenter(PipelineConfig(engine="openvino"), folder, SIZE_HW)


def test_openvino_graphs_are_translated_once_for_onnx_runtime(cache):
    first = onnx_folder(find_model("lite"))
    assert first.parent == cache / "onnx"
    written = (first / "encoder.onnx").stat().st_mtime_ns
    assert onnx_folder(find_model("lite")) == first
    assert (first / "encoder.onnx").stat().st_mtime_ns == written
    assert content_hash(first) != content_hash(find_model("lite"))


def test_a_video_is_tracked_with_the_engine_of_the_option(cli, cache, shapes, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", shapes[0][:4])
    y, x = (float(n.mean()) for n in np.nonzero(shapes[1][0] == 2))
    event = {"frame": 0, "type": "point", "object": 1, "xy": [x, y], "label": 1}
    (tmp_path / "prompts.json").write_text(json.dumps({"version": 1, "events": [event]}))
    options = ("--prompts", tmp_path / "prompts.json", "--quiet")
    stored = {}
    for engine in ("openvino", "onnxruntime"):
        output = tmp_path / f"{engine}.zarr"
        code, _, err = cli("run", clip, "-o", output, "--engine", engine, *options)
        assert code == 0, err
        with MaskStore(output) as store:
            stored[engine] = store.frame(3).labels > 0
    assert iou(stored["openvino"], stored["onnxruntime"]) > 0.95
    assert (cache / "onnx").is_dir()
    code, _, err = cli("run", clip, "-o", tmp_path / "x.zarr", "--engine", "tflite")
    assert code == 1
    assert "engine" in err


def test_a_damaged_file_is_a_model_error(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"cannot load .*decoder\.onnx"):
        open_model(broken, SIZE_HW)


def test_what_is_not_installed_is_said(folder, monkeypatch, cache):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"maskstream\[onnx\]"):
        open_model(folder, SIZE_HW)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"maskstream\[onnx\]"):
        onnx_folder(find_model("lite"))


def test_the_command_writes_once_and_replaces_only_its_own(cli, tmp_path):
    output = tmp_path / "out"
    code, out, err = cli("export-model", "lite", "--int8", "-o", output)
    assert code == 0, err
    assert "encoder.onnx" in out
    code, _, err = cli("export-model", "lite", "-o", output)
    assert (code, "--overwrite" in err) == (1, True)
    code, _, err = cli("export-model", "lite", "-o", output, "--overwrite")
    assert code == 0, err
    (tmp_path / "mine").mkdir()
    code, _, err = cli("export-model", "lite", "-o", tmp_path / "mine", "--overwrite")
    assert (code, "give another" in err) == (1, True)
    code, _, err = cli("export-model", "lte", "-o", tmp_path / "x")
    assert (code, "did you mean lite" in err) == (1, True)


def test_the_command_checks_masks_against_openvino(cli, shapes, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/one.png"), shapes[0][0])
    check = ("--check", tmp_path / "images")
    code, out, err = cli("export-model", "lite", "-o", tmp_path / "out", *check)
    assert code == 0, err
    assert "masks against OpenVINO in FP32: mean IoU 1.0000" in out
    code, _, err = cli("export-model", "tinysam", "-o", tmp_path / "x", *check)
    assert (code, "--check compares a model folder" in err) == (1, True)
    code, _, err = cli("export-model", "lite", "-o", tmp_path / "y", "--check", tmp_path / "no.mp4")
    assert (code, "to check on" in err, (tmp_path / "y").exists()) == (1, True, False)
    words = ("export-model", "lite", "-o", tmp_path / "y", "--int8", "--calibration", *check[1:])
    code, _, err = cli(*words)
    assert (code, "--calibration is for a checkpoint" in err) == (1, True)


def test_onnx_runtime_runs_without_torch_and_openvino(folder):
    code = (
        "import sys; from pathlib import Path;"
        "from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter;"
        f"OnnxSegmenter(Path({str(folder)!r}), (90, 160));"
        "print([m for m in ('torch', 'openvino', 'onnx') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
