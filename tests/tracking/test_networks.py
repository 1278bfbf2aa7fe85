"""Tracks do not depend on the model that answers prompts."""

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.models.networks import Networks, open_networks
from maskstream.pipeline.models.open import locate_model
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.sources.arrays import ArraySource
from tests.support.media import moving_shapes
from tests.support.models import write_fp32_folder

pytestmark = pytest.mark.slow

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tinysam(tmp_path_factory):
    """TinySAM at its published size of 1024, with random weights."""
    return write_fp32_folder(build("tinysam"), tmp_path_factory.mktemp("m") / "tinysam", 1024)


def tracks(model, frames, masks):
    config = PipelineConfig(model=str(model), seeding=SeedingConfig(enabled=False))
    events = [{"frame": 0, "type": "mask", "object": i, "mask": masks[0] == i} for i in (1, 2)]
    prompts = PromptLog.model_validate({"version": 1, "events": events})
    return [result.labels for result in Pipeline(config).stream(ArraySource(frames), prompts)]


def test_tracks_of_another_model_equal_those_of_the_embedded_one(tinysam):
    frames, masks = moving_shapes(20, (144, 256), shapes=2)
    for one, other in zip(
        tracks("lite", frames, masks), tracks(tinysam, frames, masks), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_another_model_encodes_only_what_it_is_prompted_on(tinysam, monkeypatch):
    networks = open_networks(PipelineConfig(), tinysam, (144, 256))
    assert networks.tracks is not networks.segmenter
    encoded = []
    monkeypatch.setattr(networks.segmenter, "encode", lambda frame: encoded.append(frame) or "e")
    frames, _ = moving_shapes(1, (144, 256), shapes=2)
    with ArraySource(frames).open() as reader:
        features = networks.encode(next(iter(reader)))
    assert encoded == []
    assert (features.prompts(), features.prompts(), len(encoded)) == ("e", "e", 1)


def test_the_embedded_model_encodes_once_for_prompts_and_tracks():
    config = PipelineConfig()
    networks = open_networks(config, locate_model(config), (144, 256))
    assert isinstance(networks, Networks)
    assert isinstance(networks.tracks, OpenVinoSegmenter)
    assert networks.tracks is networks.segmenter
