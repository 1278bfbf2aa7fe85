"""Folding the paddings of a graph: the same answers, bit for bit, without them."""

import numpy as np
import pytest

from maskstream.pipeline.segmenter.model import EMBEDDED
from maskstream.pipeline.segmenter.openvino_padding import fold_paddings
from maskstream.pipeline.segmenter.openvino_runtime import opset, ov

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def answers(graph: ov.Model, pixels: np.ndarray) -> list[np.ndarray]:
    compiled = ov.Core().compile_model(graph, "CPU", OPTIONS)
    return [np.array(value) for value in compiled([pixels]).values()]


def test_folded_graph_answers_the_same():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), np.uint8)
    path = EMBEDDED / "lite" / "encoder.xml"
    snapshot = answers(ov.Core().read_model(path), pixels)
    folded = fold_paddings(ov.Core().read_model(path))
    assert "Pad" not in {layer.get_type_name() for layer in folded.get_ops()}
    for before, after in zip(snapshot, answers(folded, pixels), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("mode", "value", "folds"),
    [("constant", 0, True), ("constant", 1, False), ("reflect", 0, False)],
)
def test_only_zeros_are_folded(mode, value, folds):
    image = opset.parameter([1, 2, 8, 8], np.float32)
    zero = np.array(value, np.float32)
    padded = opset.pad(image, [0, 0, 0, 0], [0, 0, 1, 1], mode, zero)
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    convolution = opset.convolution(padded, weight, [2, 2], [0, 0], [0, 0], [1, 1])
    graph = ov.Model([convolution], [image])
    pixels = np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)
    (before,) = answers(graph, pixels)
    (after,) = answers(fold_paddings(graph), pixels)
    assert ("Pad" not in {layer.get_type_name() for layer in graph.get_ops()}) == folds
    assert np.allclose(before, after, atol=1e-5)
