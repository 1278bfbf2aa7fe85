"""The torch segmenter answers as the OpenVINO graphs of the same network do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from maskstream.pipeline.quantization.export import architecture_of, export
from maskstream.pipeline.segmenter.layers import LayerNorm2d
from maskstream.pipeline.segmenter.model import Features, OpenVinoSegmenter, PromptBatch
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.segmenter.torch_segmenter import BATCH, TorchSegmenter
from tests.support.reference import relative_error

FRAME_HW = (90, 200)
LONG_SIDE = 128  # the input is 58 x 128, padded to 64 x 128
GRID_HW = (16, 32)
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory) -> tuple[TorchSegmenter, OpenVinoSegmenter]:
    """The same random network in torch and as FP32 graphs."""
    torch.manual_seed(0)
    network = build("lite").eval()
    network.architecture = replace(network.architecture, long_side=LONG_SIDE)
    folder = tmp_path_factory.mktemp("lite")
    for graph, name in zip(export(network), ("encoder", "decoder"), strict=True):
        ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)
    card = architecture_of(network) | {"method": "fp32"}
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return TorchSegmenter(network, FRAME_HW, "cpu"), OpenVinoSegmenter(folder, FRAME_HW)


def image(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (58, LONG_SIDE, 3), np.uint8)


def prompts(kind: str) -> PromptBatch:
    rng = np.random.default_rng(1)
    count = BATCH + 3
    near, far = rng.uniform(5, 40, (count, 2)), rng.uniform(45, 85, (count, 2))
    points = PromptBatch.points(np.stack([near, far], 1), np.tile([1, 0], (count, 1)))
    mask = rng.normal(0, 4, (count, 1, *GRID_HW)).astype(np.float32)
    has_mask = (np.arange(count) % 2).astype(np.float32)
    return {
        "points": points,
        "boxes": PromptBatch.boxes(np.concatenate([near, far], 1)),
        "masks": replace(points, mask=mask),
        "masks of some": replace(points, mask=mask, has_mask=has_mask),
    }[kind]


@pytest.mark.parametrize("kind", ["points", "boxes", "masks", "masks of some"])
def test_answers_are_those_of_the_graphs(kind, segmenters):
    ours, graphs = segmenters
    assert ours.geometry == graphs.geometry
    asked = prompts(kind)
    answer = ours.decode(ours.encode_rgb(image(0)), asked)
    expected = graphs.decode(graphs.encode_rgb(image(0)), asked)
    assert answer.masks.dtype == answer.iou.dtype == np.float32
    assert answer.masks.shape == (len(asked), 4, *GRID_HW)
    assert relative_error(answer.masks, expected.masks) < TOLERANCE
    assert relative_error(answer.iou, expected.iou) < TOLERANCE


def test_features_outlive_the_next_image(segmenters):
    ours, _ = segmenters
    first = ours.encode_rgb(image(0))
    before = ours.decode(first, prompts("points"))
    ours.encode_rgb(image(1))
    np.testing.assert_array_equal(before.masks, ours.decode(first, prompts("points")).masks)


def test_card_says_what_the_folder_says(segmenters):
    ours, graphs = segmenters
    assert ours.card == graphs.card.model_copy(update={"method": "torch cpu"})


def test_features_of_another_segmenter_are_refused(segmenters):
    ours, _ = segmenters
    with pytest.raises(TypeError, match="not encoded by a TorchSegmenter"):
        ours.decode(Features({}), prompts("points"))


def test_layer_norms_over_channels_compute_in_float32():
    """In half precision the square of 1000 is infinite and the result zero."""
    network = build("lite")
    TorchSegmenter(network, FRAME_HW, "cpu")
    norms = [layer for layer in network.modules() if isinstance(layer, LayerNorm2d)]
    assert norms
    for norm in norms:
        channels = norm.weight.numel()
        values = torch.linspace(-1000, 1000, channels)[None, :, None, None]
        out = norm(values.half())
        assert out.dtype == torch.float32
        assert torch.allclose(out, norm(values.half().float()))
        assert out.abs().max() > 1
