"""Models without mask prompts and with few points: what they refuse, and what they are asked."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.lab.bench.memory import use_openvino
from maskstream.pipeline.prompts import BoxEvent, PointEvent
from maskstream.pipeline.quantization.export import architecture_of
from maskstream.pipeline.quantization.quantize import quantize, write_folder
from maskstream.pipeline.segmenter.corrections import Correction, PixelClick, correct_mask
from maskstream.pipeline.segmenter.efficient_sam import POINTS, PointPromptEncoder
from maskstream.pipeline.segmenter.encoders.stretched_vit import (
    StretchedViTEncoder,
    StretchedViTSize,
)
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD
from maskstream.pipeline.segmenter.model import (
    Decoded,
    OpenVinoSegmenter,
    PromptBatch,
    stability,
)
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.segmenter.torch_segmenter import TorchSegmenter
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.tracking.prompting import decode_events
from maskstream.pipeline.types import Frame
from maskstream.trackers.tracker import Tracker, TrackerSettings
from tests.support.media import moving_shapes

FRAME_HW = (120, 176)


class Asked(TorchSegmenter):
    """EfficientSAM that keeps the prompts it decodes."""

    prompts: PromptBatch

    def decode(self, features: Any, prompts: PromptBatch) -> Decoded:
        self.prompts = prompts
        return super().decode(features, prompts)


@pytest.fixture(scope="module")
def asked() -> Asked:
    torch.manual_seed(0)
    network = build("efficient-sam-ti")
    network.architecture = replace(network.architecture, long_side=128)
    return Asked(network, FRAME_HW, "cpu")


@pytest.fixture(scope="module")
def frame() -> Frame:
    rgb = moving_shapes(1, FRAME_HW, shapes=2, seed=1)[0][0]
    return Frame(0, None, Fraction(1), FRAME_HW, ArrayView(rgb))


def test_a_frame_is_stretched_to_the_square_and_back():
    geometry = InputGeometry.fit(FRAME_HW, 128, 16, stretched=True)
    assert geometry.input_hw == geometry.valid_hw == (128, 128)
    corner = np.array([FRAME_HW[::-1]], np.float32)
    np.testing.assert_allclose(geometry.normalize(corner), [[1, 1]])
    logits = np.where(np.arange(32)[:, None] < 16, 1, -1) * np.ones(32)
    back = geometry.to_size(logits.astype(np.float32), FRAME_HW) > 0
    assert back[:60].all()
    assert not back[60:].any()


def test_padding_may_be_anywhere_and_more_than_six_points_are_left_out():
    encoder = PointPromptEncoder(32)
    xy = torch.rand(1, 8, 2)
    labels = torch.tensor([[1.0, 0, 2, 3, 1, 1, 1, 0]])
    whole = encoder.tokens(xy, labels)
    assert whole.shape == (1, POINTS, 32)
    torch.testing.assert_close(whole, encoder.tokens(xy[:, :POINTS], labels[:, :POINTS]))
    padded = torch.tensor([[1.0, PAD, 2, 3]])
    first = encoder.tokens(xy[:, :4], padded)
    other = encoder.tokens(xy[:, :4] * torch.tensor([1.0, 9, 1, 1])[:, None], padded)
    torch.testing.assert_close(first, other)  # a padding point's position does not matter
    torch.testing.assert_close(first[:, 1], first[:, 5])


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (PromptBatch.points(np.full((1, 7, 2), 9.0)), "at most 6 points.* and 7 were given"),
        (
            PromptBatch(
                np.zeros((1, 1, 2), np.float32),
                np.ones((1, 1), np.float32),
                np.zeros((1, 1, 32, 32), np.float32),
            ),
            "takes points and boxes only",
        ),
    ],
)
def test_what_it_cannot_take_is_refused(asked, frame, prompts, sentence):
    with pytest.raises(PromptError, match=sentence):
        asked.decode(asked.encode(frame), prompts)


def test_six_points_are_taken_with_their_padding(asked, frame):
    decoded = asked.decode(asked.encode(frame), PromptBatch.points(np.full((1, 6, 2), 9.0)))
    assert decoded.masks.shape == (1, 4, 32, 32)


@pytest.mark.parametrize(
    ("events", "box"),
    [
        ((PointEvent(type="point", frame=0, object=1, xy=(150, 30), label=1),), (20, 30, 151, 80)),
        ((PointEvent(type="point", frame=0, object=1, xy=(30, 50), label=0),), (20, 40, 60, 80)),
        ((BoxEvent(type="box", frame=0, object=1, xyxy=(5, 6, 70, 80)),), (5, 6, 70, 80)),
    ],
    ids=["a positive point beside it", "a negative point", "a box of the person's"],
)
def test_a_track_is_prompted_by_its_box(asked, frame, events, box):
    tracker = Tracker(TrackerSettings())
    logits = np.full(FRAME_HW, -4, np.float32)
    logits[40:80, 20:60] = 4
    tracker.set(1, logits, 1.0, 0.0)
    decode_events(asked, asked.encode(frame), events, tracker.find(1), FRAME_HW)
    assert asked.prompts.mask is None
    assert list(asked.prompts.labels[0, :2]) == [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    np.testing.assert_allclose(asked.prompts.xy[0, :2].ravel(), box)


def test_a_correction_after_many_clicks_asks_with_the_last_ones(asked, frame):
    mask = np.zeros(FRAME_HW, np.bool_)
    mask[40:80, 20:60] = True
    earlier = tuple(PixelClick(22 + 4 * i, 50, True) for i in range(8))
    click = PixelClick(30, 70, False)
    rgb = frame.rgb(asked.geometry.valid_hw)
    corrected = correct_mask(asked, asked.encode(frame), rgb, Correction(mask, click, earlier))
    assert not corrected[70, 30]
    assert len(asked.prompts) == 2
    assert ((asked.prompts.labels != PAD).sum(1) <= POINTS).all()
    assert (asked.prompts.xy[0] == (30.5, 70.5)).all(1).any()


@pytest.mark.slow
def test_it_is_quantized_as_other_networks_are(tmp_path):
    torch.manual_seed(0)
    network = build("efficient-sam-ti")
    network.image_encoder = StretchedViTEncoder(StretchedViTSize(32, 2))
    network.architecture = replace(network.architecture, long_side=128)
    made = quantize(network, list(moving_shapes(4, FRAME_HW, shapes=2, seed=1)[0]))
    write_folder(made, tmp_path / "model")
    segmenter = OpenVinoSegmenter(tmp_path / "model", FRAME_HW)
    card = segmenter.card
    assert (card.stretched, card.mask_prompts, card.points_max) == (True, False, POINTS)
    assert made.comparison.cosine > 0.9
    features = segmenter.encode_rgb(np.zeros((*segmenter.geometry.valid_hw, 3), np.uint8))
    decoded = segmenter.decode(features, PromptBatch.boxes([10, 10, 90, 80]))
    assert np.isfinite(decoded.masks).all()
    use_openvino(tmp_path / "model", (72, 128), threads=1)  # as `bench models` does, on any size


def test_edge_sam_is_scored_by_the_stability_of_its_masks():
    with torch.device("meta"):
        card = architecture_of(build("edge-sam"))
    assert card["score"] == "stability"
    torch.manual_seed(0)
    network = build("edge-sam")
    network.architecture = replace(network.architecture, long_side=128)
    segmenter = TorchSegmenter(network, FRAME_HW, "cpu")
    features = segmenter.encode_rgb(np.zeros((*segmenter.geometry.valid_hw, 3), np.uint8))
    decoded = segmenter.decode(features, PromptBatch.points([[[60.0, 40]]]))
    np.testing.assert_array_equal(decoded.iou, stability(decoded.masks))
