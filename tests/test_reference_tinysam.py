"""The network `tinysam` computes the published function (see `reference.py`)."""

from __future__ import annotations

import pytest
import torch

from pipeline.bench.fill import filled
from pipeline.segmenter.checkpoints import load_into
from pipeline.segmenter.encoders.tiny_vit import TinyViTEncoder
from pipeline.segmenter.sam import build
from tests.reference import (
    ARRAYS,
    TOLERANCE,
    Arrays,
    published_arrays,
    published_shapes,
    relative_error,
    reproduce,
    requires_reference,
)


@pytest.fixture(scope="module")
def computed() -> Arrays:
    model = build("tinysam").eval()
    load_into(model, filled(model.state_dict()))
    return reproduce(model, always_three=True)


@pytest.fixture(scope="module")
def published() -> Arrays:
    return published_arrays("tinysam")


@requires_reference
@pytest.mark.parametrize("name", ["tinysam", "mobilesam"])
def test_reference_keys_and_shapes(name: str) -> None:
    state = build(name).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published_shapes("tinysam")


@requires_reference
def test_reference_has_no_array_untested(published: Arrays) -> None:
    assert set(published) == set(ARRAYS)


@requires_reference
@pytest.mark.parametrize("array", ARRAYS)
def test_reference_array(array: str, computed: Arrays, published: Arrays) -> None:
    assert relative_error(computed[array], published[array]) < TOLERANCE


@pytest.mark.parametrize("size_hw", [(64, 64), (48, 112), (112, 16)])
def test_features_have_their_strides_at_any_multiple_of_16(size_hw: tuple[int, int]) -> None:
    h, w = size_hw
    encoder = TinyViTEncoder().eval()
    with torch.no_grad():
        features = encoder.features(torch.zeros(1, 3, h, w))
    assert features.embedding.shape == (1, 256, h // 16, w // 16)
    assert features.s8.shape == (1, 128, h // 8, w // 8)
    assert features.s16.shape == (1, 160, h // 16, w // 16)
