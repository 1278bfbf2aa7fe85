"""Quantizing end to end at a small size: the folder, the gate, the report."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.lab.bench.fill import filled
from maskstream.pipeline.lab.training.start import imagenet_checkpoint
from maskstream.pipeline.quantization.calibration import PreparedImage, prepare
from maskstream.pipeline.quantization.export import DECODER_INPUTS, DECODER_OUTPUTS, export_encoder
from maskstream.pipeline.quantization.gate import Comparison, Gate, cosine, refuse_if_unfit
from maskstream.pipeline.quantization.nncf_method import Trials, quantize_graph, quantize_graphs
from maskstream.pipeline.quantization.quantize import QuantizedModel, quantize, write_folder
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.quantization.sensitivity import (
    error_against,
    quantized_layers,
    uncorrected,
    without,
)
from maskstream.pipeline.quantization.tinysam_ptq import Goal
from maskstream.pipeline.quantization.tinysam_ptq.fp32_layers import MAX_COMPARISONS
from maskstream.pipeline.segmenter.encoders.plain_vit import PlainViTEncoder, ViTSize
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter, PromptBatch
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import build, sam_with
from tests.support.cpu import int8_is_exact
from tests.support.media import moving_shapes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized() -> QuantizedModel:
    """`lite` with an ImageNet backbone at 128 pixels, quantized on two pictures."""
    torch.manual_seed(0)
    model = build("lite")
    model.image_encoder.backbone.load_imagenet(imagenet_checkpoint("lite"))
    model.architecture = replace(model.architecture, long_side=128)
    frames, _ = moving_shapes(4, (72, 128), shapes=2)
    return quantize(model, list(frames), method="nncf", source="test")


def test_folder_says_what_it_is_and_runs(quantized, tmp_path):
    folder = tmp_path / "model"
    write_folder(quantized, folder)
    card = yaml.safe_load((folder / "model.yaml").read_text())
    assert (card["name"], card["method"], card["long_side"]) == ("lite", "nncf", 128)
    assert card["accuracy"]["embedding_cosine"] > 0.9
    segmenter = OpenVinoSegmenter(folder, (72, 128), threads=1)
    assert segmenter._encoder.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
    frames, _ = moving_shapes(1, (72, 128), shapes=2)
    decoded = segmenter.decode(
        segmenter.encode_rgb(frames[0]), PromptBatch.boxes([[10, 10, 60, 60]])
    )
    assert decoded.masks.shape == (1, 4, 24, 32)
    assert np.isfinite(decoded.masks).all()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_int8_is_close_to_fp32(quantized):
    assert quantized.comparison.cosine > 0.9


def test_convolutions_pad_by_themselves(quantized):
    assert "Pad" not in {layer.get_type_name() for layer in quantized.encoder.get_ops()}


def test_what_stays_in_float_is_on_the_card(quantized):
    assert any(line.startswith("decoder: ") for line in quantized.card.kept_in_fp32)


class _Encoder(nn.Module):
    """Three convolutions; the last reads channels of very different size, which INT8 ruins."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, stride=4)
        self.harmless = nn.Conv2d(8, 8, 1)
        self.harmed = nn.Conv2d(8, 8, 1)
        self.harmless.weight.data[0] = 100
        self.harmed.weight.data[:, 0] = 0

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.first(image.permute(0, 3, 1, 2).float() / 255 - 0.5))
        return self.harmed(torch.relu(self.harmless(x)))


class _Decoder(nn.Module):
    """The embedding's channels by distance from the click, as masks."""

    def forward(
        self, embedding: Tensor, xy: Tensor, labels: Tensor, mask: Tensor, has: Tensor, grid: Tensor
    ) -> tuple[Tensor, Tensor]:
        near = (xy[:, :1, :, None] - grid.flatten(1)[None]).square().sum(2).reshape(mask.shape)
        masks = embedding[:, :4] - embedding[:, 4:] - near + mask * has[:, None, None, None]
        return masks, masks.mean((2, 3)) + labels.mean(1, keepdim=True)


@pytest.fixture(scope="module")
def tiny() -> tuple[tuple[ov.Model, ov.Model], list[PreparedImage]]:
    """FP32 graphs and pictures."""
    torch.manual_seed(0)
    frames, _ = moving_shapes(4, (96, 128), shapes=2)
    images = [prepare(frame, 128, 32, (127, 127, 127)) for frame in frames]
    h, w = images[0].geometry.grid_hw
    image = torch.from_numpy(images[0].image)
    prompt = (
        torch.zeros(2, 2, 2),
        torch.ones(2, 2),
        torch.zeros(2, 1, h, w),
        torch.zeros(2),
        torch.zeros(2, h, w),
    )
    shapes = [[1, 8, h, w], [-1, -1, 2], [-1, -1], [-1, 1, h, w], [-1], [2, h, w]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates tracing
        encoder = ov.convert_model(
            _Encoder().eval(), example_input=(image,), input=[(list(image.shape), ov.Type.u8)]
        )
        decoder = ov.convert_model(
            _Decoder(),
            example_input=(torch.zeros(1, 8, h, w), *prompt),
            input=[(shape, ov.Type.f32) for shape in shapes],
        )
    for ports, names in (
        (encoder.inputs, ("image",)),
        (encoder.outputs, ("embedding",)),
        (decoder.inputs, ("embedding", *DECODER_INPUTS)),
        (decoder.outputs, DECODER_OUTPUTS),
    ):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return (encoder, decoder), images


def test_layers_go_back_into_float_until_the_goal_is_reached(tiny):
    fp32, images = tiny
    goal = Goal(mask_iou_min=0.99, cosine_min=0.9999)
    trials = Trials(fp32, images, goal)
    plain = quantize_graphs(fp32, images)
    assert list(plain.kept_in_fp32) == ["decoder"]
    assert not trials.passes((plain.encoder, plain.decoder), "plain", print)
    said: list[str] = []
    found = quantize_graphs(fp32, images, goal=goal, report=said.append)
    assert trials.passes((found.encoder, found.decoder), "restored", print)
    _, harmed = found.kept_in_fp32
    assert harmed.startswith("encoder: harmed/")
    assert "alone causes an error of" in found.kept_in_fp32[harmed]
    assert max(found.errors, key=found.errors.__getitem__) == harmed
    assert any(line.startswith("encoder: 1 of ") for line in said)
    assert any(line.startswith("too far from FP32") for line in said)
    tried = [line for line in said if "layers in float: mask IoU" in line]
    assert len(tried) <= 2 * (1 + MAX_COMPARISONS)
    again = quantize_graphs(fp32, images, goal=goal)
    assert again.kept_in_fp32 == found.kept_in_fp32


def test_trials_keep_no_graph_for_another(tiny):
    fp32, images = tiny
    plain = quantize_graphs(fp32, images)
    trials = Trials(fp32, images, Goal(0.0, 0.0))
    int8 = (plain.encoder, plain.decoder)
    alone = trials.closeness(int8)
    assert trials.closeness(fp32) == pytest.approx((1.0, 1.0))
    assert trials.closeness((fp32[0], int8[1]))[1] == pytest.approx(1.0)
    assert trials.closeness((int8[0], fp32[1]))[1] == alone[1] < 1
    assert trials.closeness(int8) == alone


def test_no_layer_is_ranked_if_the_goal_is_reached_as_it_is(tiny):
    fp32, images = tiny
    found = quantize_graphs(fp32, images, goal=Goal(0.0, 0.0))
    assert list(found.kept_in_fp32) == ["decoder"]
    assert found.errors == {}


def test_single_layers_can_be_left_in_float_weights_included(tiny, capsys):
    (encoder, _), images = tiny
    samples = [{"image": image.image} for image in images]
    graph = quantize_graph(encoder, samples, correct_bias=False, compress=False)
    shown = capsys.readouterr()
    assert shown.out == ""  # which is a command's answer, JSON perhaps
    assert "Statistics" in shown.err
    names = quantized_layers(graph)
    assert len(names) >= 3
    assert quantized_layers(without(graph, names[:1])) == names[1:]
    assert error_against(encoder, samples)(without(graph, names)) < 1e-5
    assert error_against(encoder, samples)(graph) > 1e-3
    corrected = quantize_graph(encoder, samples, compress=False)
    as_if_never = uncorrected(corrected, encoder)
    assert (
        error_against(graph, samples)(as_if_never) < 1e-5 < error_against(graph, samples)(corrected)
    )
    assert error_against(encoder, samples)(without(corrected, names)) > 1e-5
    assert error_against(encoder, samples)(without(corrected, names, encoder)) < 1e-5


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_graphs_are_judged_at_the_size_they_run_at():
    """Compiled for any size, a convolution before a norm over channels answers next to nothing."""
    model = sam_with("small", PlainViTEncoder(ViTSize(32, 4, 2)), long_side=128)
    model.load_state_dict(filled(model.state_dict()))
    frames, _ = moving_shapes(3, (72, 128), shapes=2)
    images = [prepare(frame, 128, 16, (124, 116, 104)).image for frame in frames]
    encoder = export_encoder(model)
    int8 = quantize_graph(encoder, [{"image": x} for x in images[:2]], correct_bias=False)
    runners = Runner(encoder), Runner(int8)
    for image in (images[2], images[2][:, :64, :96]):
        exact, near = (runner({"image": image})["embedding"] for runner in runners)
        assert cosine(exact, near) > (0.99 if int8_is_exact() else 0.95)


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


def test_nothing_is_reported_to_the_makers_of_openvino_and_nncf(tmp_path):
    code = (
        "import maskstream.pipeline.quantization.nncf_method;"
        "from openvino.tools.ovc import telemetry_utils as ovc;"
        "from nncf.telemetry import telemetry; print(ovc.tm.__name__, type(telemetry).__name__)"
    )
    bare = {k: v for k, v in os.environ.items() if k != "CI" and "PYTEST" not in k}
    bare["HOME"] = str(tmp_path)
    told = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True)
    by_openvino, by_nncf = told.stdout.split()
    assert by_openvino == "openvino.tools.ovc.telemetry_stub"
    assert by_nncf != "NNCFTelemetry"
    assert not (tmp_path / "intel").exists()  # where a client's number would be kept
