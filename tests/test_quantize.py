"""Quantising end to end at a small size: the folder, the gate, the report."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from pipeline.errors import ModelError
from pipeline.quantization.gate import Comparison, Gate, refuse_if_unfit
from pipeline.quantization.quantize import Quantised, quantise, write_folder
from pipeline.quantization.sensitivity import activation_quantizers, without
from pipeline.segmenter.model import OpenVinoSegmenter, PromptBatch
from pipeline.segmenter.sam import build
from pipeline.training.start import imagenet_checkpoint
from tests.media import moving_shapes


@pytest.fixture(scope="module")
def quantised() -> Quantised:
    """`lite` with an ImageNet backbone at 128 pixels, quantised on two pictures."""
    torch.manual_seed(0)
    model = build("lite")
    model.image_encoder.backbone.load_imagenet(imagenet_checkpoint("lite"))
    model.architecture = replace(model.architecture, long_side=128)
    frames, _ = moving_shapes(4, (72, 128), shapes=2)
    return quantise(model, list(frames), method="nncf", source="test")


def test_folder_says_what_it_is_and_runs(quantised, tmp_path):
    folder = tmp_path / "model"
    write_folder(quantised, folder)
    card = yaml.safe_load((folder / "model.yaml").read_text())
    assert (card["name"], card["method"], card["long_side"]) == ("lite", "nncf", 128)
    assert card["accuracy"]["embedding_cosine"] > 0.9
    segmenter = OpenVinoSegmenter(folder, (72, 128), threads=1)
    frames, _ = moving_shapes(1, (72, 128), shapes=2)
    decoded = segmenter.decode(
        segmenter.encode_rgb(frames[0]), PromptBatch.boxes([[10, 10, 60, 60]])
    )
    assert decoded.masks.shape == (1, 4, 24, 32)
    assert np.isfinite(decoded.masks).all()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_int8_is_close_to_fp32(quantised):
    assert quantised.comparison.cosine > 0.9


def test_one_activation_at_a_time_can_be_left_in_float(quantised):
    names = activation_quantizers(quantised.encoder)
    assert len(names) > 20
    assert all(readers for readers in names.values())
    first = next(iter(names))
    assert activation_quantizers(without(quantised.encoder, {first})).keys() == (
        names.keys() - {first}
    )
    assert activation_quantizers(without(quantised.encoder, names)) == {}


GOOD = Comparison(0.98, 0.999, 100.0, 30.0, 50.0, 30.0)


@pytest.mark.parametrize(
    ("change", "gate", "says"),
    [
        ({}, Gate(), None),
        ({"mask_iou": 0.95}, Gate(), "mask IoU 0.9500 is below 0.97"),
        ({"mask_iou": 0.95}, Gate(trained=False), None),
        ({"cosine": 0.99}, Gate(), "embedding cosine 0.9900 is below 0.995"),
        ({"encoder_int8_ms": 120.0}, Gate(), "takes 120.0 ms, FP32 100.0 ms"),
    ],
)
def test_gate_refuses_what_is_inaccurate_or_slow_with_the_figures(change, gate, says):
    comparison = replace(GOOD, **change)
    if says is None:
        refuse_if_unfit(comparison, gate)
    else:
        with pytest.raises(ModelError, match=says):
            refuse_if_unfit(comparison, gate)
