"""The batch axis of traced graphs: freed where every output keeps it, else left."""

import numpy as np
import pytest

from maskstream.pipeline.onnx_graphs.free_batch import with_free_batch
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.openvino_runtime import opset, ov

SIDE = 4


def graph(*shapes: list[int]) -> ov.Model:
    """An image, reshaped one after the other."""
    image = opset.parameter([1, -1, -1, 3], np.uint8, name="image")
    node = image.output(0)
    for shape in shapes:
        node = opset.reshape(node, opset.constant(np.array(shape)), special_zero=False).output(0)
    node.get_node().output(0).set_names({"out"})
    return ov.Model([node], [image], "encoder")


@pytest.mark.parametrize(
    "shapes",
    [
        [[1, -1, 3]],  # cells of the image
        [[-1, SIDE, 3], [-1, SIDE * 3], [1, 256, 256 * 3]],  # cut to pieces and joined again
    ],
)
def test_a_graph_that_keeps_images_apart_takes_several(shapes):
    freed = with_free_batch(graph(*shapes))
    assert freed is not None
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    run = Runner(freed, threads=1)
    together = run({"image": images})["out"]
    alone = [run({"image": images[i : i + 1]})["out"] for i in range(2)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("shapes", [[[-1, 3]], [[3, -1]], [[1, 256, -1], [256, -1]]])
def test_a_graph_that_mixes_images_is_left(shapes):
    assert with_free_batch(graph(*shapes)) is None
