"""Single operations in ONNX Runtime give what OpenVINO gives; what cannot be written is refused."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.onnx_graphs import translation
from maskstream.pipeline.onnx_graphs.translation import to_onnx
from maskstream.pipeline.segmenter.openvino_runtime import opset, ov


def constant(values, dtype=np.int64):
    return opset.constant(np.array(values, dtype))


def rows_of(x):
    """The dynamic length of the second axis, [] int64."""
    return opset.gather(opset.shape_of(x), constant(1), constant(0))


def attention(x, *mask):
    heads = opset.unsqueeze(x, constant(0))
    return opset.scaled_dot_product_attention(heads, heads, heads, *mask, causal=False)


def as_floats(x):
    return opset.convert(x, "f32")


def reshaped(x):
    return opset.reshape(x, constant([0, -1]), special_zero=True)


def resized(x, target, mode="linear_onnx", by="sizes", coordinates="half_pixel"):
    """Rows and columns of an image [1, 1, rows, 5] at another size, [1, 1, ...]."""
    image = opset.unsqueeze(x, constant(1))
    return opset.interpolate(
        image,
        target,
        mode,
        by,
        axes=constant([2, 3]),
        coordinate_transformation_mode=coordinates,
        cube_coeff=-0.75,
    )


def doubled_rows(x):
    rows = opset.multiply(rows_of(x), constant(2))
    return opset.concat([opset.unsqueeze(rows, constant(0)), constant([8])], 0)


GRAPHS = {
    "resize to computed sizes": lambda x: resized(x, doubled_rows(x)),
    "resize by cubic": lambda x: resized(x, doubled_rows(x), "cubic"),
    "resize to sizes": lambda x: resized(x, constant([3, 9]), "nearest"),
    "resize by scales": lambda x: resized(x, constant([2, 1.5], np.float32), by="scales"),
    "resize by computed scales": lambda x: resized(
        x, opset.divide(as_floats(doubled_rows(x)), constant([7, 8], np.float32)), by="scales"
    ),
    "gelu by tanh": lambda x: opset.gelu(x, "tanh"),
    "gelu": lambda x: opset.gelu(x, "erf"),
    "hard swish": opset.hswish,
    "swish": opset.swish,
    "clamp": lambda x: opset.clamp(x, -0.5, 0.7),
    "layer norm": lambda x: opset.mvn(x, constant([-1]), True, 1e-6, "inside_sqrt"),
    "attention": attention,
    "attention with a mask": lambda x: attention(x, opset.matmul(x, x, False, True)),
    "product transposed": lambda x: opset.matmul(x, x, True, False),
    "product of a constant": lambda x: opset.matmul(x, constant(np.eye(5, 6), np.float32), 0, 0),
    "einsum": lambda x: opset.einsum([x, x], "bij,bkj->bik"),
    "range": lambda x: as_floats(opset.range(constant(0), rows_of(x), constant(1), "i64")),
    "floor of ints": lambda x: as_floats(opset.floor(rows_of(x))),
    "remainder": lambda x: as_floats(opset.floor_mod(opset.negative(rows_of(x)), constant(3))),
    "remainder of c": lambda x: as_floats(opset.mod(opset.negative(rows_of(x)), constant(3))),
    "zero copies an axis": reshaped,
    "slice": lambda x: opset.slice(x, *(constant([n]) for n in (1, -1, 2, 1))),
    "split": lambda x: opset.variadic_split(x, constant(2), constant([2, -1])).output(1),
    "split evenly": lambda x: opset.split(opset.concat([x, x], 2), constant(2), 2).output(1),
    "pad": lambda x: opset.pad(x, constant([0, 1, 2]), constant([0, 0, 1]), "edge"),
    "broadcast": lambda x: opset.broadcast(x, constant([3, 1, 1]), broadcast_spec="BIDIRECTIONAL"),
    "sum": lambda x: opset.reduce_sum(x, constant([1]), False),
    "largest": lambda x: opset.reduce_max(x, constant([0, 2]), True),
    "power": lambda x: opset.power(x, constant(2, np.float32)),
    "select": lambda x: opset.select(opset.greater(x, constant(0, np.float32)), x, opset.exp(x)),
}


def model_of(build) -> ov.Model:
    x = opset.parameter([1, -1, 5], np.float32)
    x.output(0).get_tensor().set_names({"x"})
    made = build(x)
    made = made if isinstance(made, ov.Output) else made.output(0)
    made.get_tensor().set_names({"y"})
    return ov.Model([opset.result(made)], [x])


@pytest.mark.parametrize("name", GRAPHS)
def test_an_operation_gives_the_numbers_of_openvino(name):
    graph = model_of(GRAPHS[name])
    values = np.random.default_rng(0).standard_normal((1, 7, 5)).astype(np.float32)
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled([values])[0]
    made = to_onnx(graph, "graph", axes={}, metadata={"key": "value"})
    session = ort.InferenceSession(made.SerializeToString())
    (found,) = session.run(["y"], {"x": values})
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    assert session.get_modelmeta().custom_metadata_map == {"key": "value"}


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda x: opset.cum_sum(x, constant(1)), "CumSum"),
        (lambda x: opset.mvn(x, constant([1, 2]), True, 1e-6, "inside_sqrt"), "MVN over axes"),
        (lambda x: opset.floor_mod(x, constant(2, np.float32)), "FloorMod of floats"),
        (lambda x: opset.gather(x, constant([[0]]), constant(1), 1), "batch axes"),
        (lambda x: opset.convert(x, "i8"), "type i8"),
    ],
)
def test_what_cannot_be_written_is_refused(build, says):
    x = opset.parameter([1, -1, 5], np.float32)
    graph = ov.Model([opset.result(build(x))], [x])
    x.output(0).get_tensor().set_names({"x"})
    with pytest.raises(ModelError, match=says):
        to_onnx(graph, "graph", axes={}, metadata={})


def test_a_graph_too_large_for_one_file_is_refused(monkeypatch):
    monkeypatch.setattr(translation, "LARGEST_BYTES", 100)
    with pytest.raises(ModelError, match="2 GB"):
        to_onnx(model_of(opset.exp), "graph", axes={}, metadata={})


def quantized_relu(low: float, high: float) -> ov.Model:
    """A convolution in INT8 after a FakeQuantize that stands for a ReLU."""
    x = opset.parameter([1, 3, -1, -1], np.float32)
    x.output(0).get_tensor().set_names({"x"})
    limits = [constant(n, np.float32) for n in (low, high, low, high)]
    fake = opset.fake_quantize(x, *limits, 256)
    stored = np.random.default_rng(1).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    scale = np.full((4, 1, 1, 1), 0.01, np.float32)
    weight = opset.multiply(opset.convert(opset.constant(stored), "f32"), opset.constant(scale))
    y = opset.convolution(fake, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    y.output(0).get_tensor().set_names({"y"})
    return ov.Model([opset.result(y)], [x])


@pytest.mark.parametrize("int8", [False, True])
def test_a_quantizer_that_stands_for_a_relu_clips_negative_values(int8):
    made = to_onnx(quantized_relu(0.0, 6.0), "graph", axes={}, metadata={}, int8=int8)
    negative = -5 * np.ones((1, 3, 6, 8), np.float32)
    session = ort.InferenceSession(made.SerializeToString())
    assert not session.run(None, {"x": negative})[0].any()


def test_int8_of_a_layer_is_within_the_rounding_of_its_floats():
    graph = quantized_relu(-4.0, 6.0)
    values = np.random.default_rng(0).uniform(-4, 6, (1, 3, 20, 24)).astype(np.float32)
    found = []
    for int8 in (False, True):
        made = to_onnx(graph, "graph", axes={}, metadata={}, int8=int8)
        found.append(ort.InferenceSession(made.SerializeToString()).run(None, {"x": values})[0])
        kinds = [node.op_type for node in made.graph.node]
        assert kinds.count("DequantizeLinear") == (2 if int8 else 0)
    step, weights = 6 / 127, 27 * 1.28  # activations' step; largest sum of a channel's weights
    assert 0 < np.abs(found[0] - found[1]).max() < step * weights / 2
    onnx.checker.check_model(made, full_check=True)
