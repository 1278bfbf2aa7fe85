"""The benchmarks: what they report, and that their models are made once."""

import json

import numpy as np
import pytest
import torch

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.lab.bench import folders
from maskstream.pipeline.lab.bench.exports import bench_exports
from maskstream.pipeline.lab.bench.fill import filled_model
from maskstream.pipeline.lab.bench.macs import count_macs
from maskstream.pipeline.lab.bench.models import BenchReport, Row, ratios_of
from maskstream.pipeline.lab.bench.rectangle import (
    BAND_STARTS,
    bands_of,
    bench_rectangle,
    cell_cosines,
)
from maskstream.pipeline.lab.bench.store import bench_store
from maskstream.pipeline.lab.bench.stream import bench_stream
from maskstream.pipeline.sources import ArraySource
from tests.support.media import moving_shapes, write_video

SQUARE, RECTANGLE = (1024, 1024), (576, 1024)


def row(model, engine, size_hw, prompts, ms):
    part = "decoder" if prompts else "encoder"
    precision = "f32" if engine == "torch" else "int8"
    return Row(model, part, engine, precision, size_hw, prompts, ms, 3, None)


ROWS = (
    row("tinysam-1024", "torch", SQUARE, 0, 1200),
    row("tinysam-1024", "torch", SQUARE, 8, 800),
    row("tinysam-1024", "torch", SQUARE, 10, 1000),
    row("tinysam-1024", "openvino", SQUARE, 0, 300),
    row("tinysam-1024", "openvino", SQUARE, 8, 200),
    row("tinysam-1024", "openvino", RECTANGLE, 0, 150),
    row("tinysam-1024", "openvino", RECTANGLE, 8, 100),
    row("tinysam-1024", "openvino", RECTANGLE, 10, 125),
    row("lite-1024", "torch", SQUARE, 0, 600),
    row("lite-1024", "openvino", SQUARE, 0, 80),
)


def test_ratios_are_the_original_by_int8():
    assert ratios_of(ROWS) == {
        "tinysam_encoder_int8_vs_torch_equal_size": 4,
        "tinysam_encoder_int8_rect_vs_torch_square": 8,
        "tinysam_decoder8_vs_original": 8,
        "tinysam_decoder8_vs_original_equal_size": 4,
        "lite_encoder_int8_vs_torch_equal_size": 7.5,
        "tinysam_encode_plus_10_prompts_vs_original": 8,
    }


def test_report_is_one_json_object():
    report = json.loads(json.dumps(BenchReport(ROWS, ratios_of(ROWS)).to_json()))
    assert report.keys() == {"rows", "ratios"}
    assert len(report["rows"]) == len(ROWS)
    assert report["rows"][1] == {
        "model": "tinysam-1024",
        "part": "decoder",
        "engine": "torch",
        "precision": "f32",
        "input_hw": [1024, 1024],
        "prompts": 8,
        "median_ms": 800,
        "rounds": 3,
        "memory_mb": None,
        "cosine": None,
        "cpu_ms": None,
    }


@pytest.mark.slow
def test_counted_products_and_parameters_are_those_of_the_papers():
    counted = {row.model: row for row in count_macs()}
    for name, billions in {
        "tinysam": 39,
        "edge-sam": 20,
        "efficientvit-sam-l0": 35,
        "efficientvit-sam-l1": 49,
        "efficientvit-sam-l2": 69,
        "efficientvit-sam-xl0": 185,
        "efficientvit-sam-xl1": 322,
        "sam-vit-b": 486,
    }.items():
        assert round(counted[name].encoder_square / 1e9) == billions
    assert round(counted["tinysam"].encoder_rectangle / 1e9, 1) == 22.2
    assert round(counted["tinysam"].decoder / 1e9, 2) == 1.83


def test_folders_are_made_once_for_the_same_weights(monkeypatch, tmp_path):
    made = []

    def make(model, target):
        made.append(model)
        for folder in (target.fp32, target.int8):
            folder.mkdir(parents=True)
            (folder / "model.yaml").write_text("long_side: 512\n")

    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(folders, "_make", make)
    model = filled_model("lite")
    said = []
    first = folders.model_folders(model, said.append)
    assert folders.model_folders(model, said.append) == first
    assert len(made) == len(said) == 1
    assert first.int8.is_relative_to(tmp_path / "models")
    small = first.with_long_side(256)
    assert (small.int8 / "model.yaml").read_text() == "long_side: 256\n"
    assert (first.int8 / "model.yaml").read_text() == "long_side: 512\n"
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert folders.model_folders(model, said.append) != first
    assert len(made) == 2


@pytest.mark.parametrize("upright", [False, True])
def test_cosines_begin_at_the_padded_border(upright):
    a = np.random.default_rng(0).standard_normal((8, 20, 36)).astype(np.float32)
    b = a.copy()
    b[:, -1] *= -1
    if upright:
        a, b = a.transpose(0, 2, 1), b.transpose(0, 2, 1)
    cosines = cell_cosines(a, b)
    assert cosines.shape == (20, 36)
    np.testing.assert_allclose(cosines[0], -1, atol=1e-5)
    np.testing.assert_allclose(cosines[1:], 1, atol=1e-5)


def test_bands_cover_every_distance_once():
    cosines = np.tile(np.arange(9, dtype=np.float32)[:, None], (2, 1, 3))
    bands = bands_of(cosines)
    assert [band.first for band in bands] == [start for start in BAND_STARTS if start < 9]
    covered = [d for band in bands for d in range(band.first, band.last + 1)]
    assert covered == list(range(9))
    assert (bands[3].mean, bands[3].lowest) == (5.5, 4)


def test_rectangle_needs_images_of_one_size(tmp_path):
    images = [np.zeros((9, 16, 3), np.uint8), np.zeros((16, 9, 3), np.uint8)]
    with pytest.raises(SourceError, match="same size"):
        bench_rectangle(tmp_path, images)


def test_exports_bench_lists_one_export_of_each_kind(tmp_path):
    frames, _ = moving_shapes(4, (90, 160), shapes=2, seed=1)
    clip = write_video(tmp_path / "clip.mp4", frames)
    report = bench_exports(clip, 3, ("davis", "coco", "png-matte", "background"))
    assert (report.video, report.frames, report.excluded) == ("clip.mp4", 3, [])
    files = {row.format: row.files for row in report.rows}
    assert files == {"davis": 3, "coco": 1, "png-matte": 3 * report.objects, "background": 1}
    assert all(row.kib > 0 and row.cpu_ms > 0 and row.iou > 0.98 for row in report.rows)
    assert len(json.loads(json.dumps(report.to_json()))["rows"]) == 4


def test_store_bench_reads_back_what_it_writes():
    report = bench_store({"small": (48, 64)}, objects=(2,), frames=70)
    assert {row.store for row in report.stores} == {
        "maskstream",
        "maskstream, read by zarr",
        "chunk per frame",
    }
    assert len(report.codecs) == 4 * 3 * 2
    assert report.ratios.keys() == {"small, 2"}
    assert json.loads(json.dumps(report.to_json())).keys() == {"codecs", "stores", "ratios"}


@pytest.mark.slow
def test_stream_bench_runs_with_as_many_objects_as_asked():
    frames, _ = moving_shapes(12, (90, 160), shapes=2, seed=1)
    report = bench_stream(PipelineConfig(), ArraySource(frames), (1, 5), turns=1)
    assert [(row.objects, row.frames) for row in report.rows] == [(1, 12), (5, 12)]
    assert report.rows[0].keyframes >= 3
    assert {"flow", "encode", "decode", "write"} <= report.rows[0].stage_ms.keys()
    printed = json.loads(json.dumps(report.to_json()))
    assert printed["rows"][1]["times_decode"] > 0
    assert printed["ms_per_object"] is not None
