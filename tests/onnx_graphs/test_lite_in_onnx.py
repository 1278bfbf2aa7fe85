"""`lite` in ONNX: the same masks as OpenVINO's FP32, at any size; INT8 as TensorRT takes it."""

import json
import shutil
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.model import GRAPHS
from maskstream.pipeline.models.export_onnx import export_onnx, write_folder_as_onnx
from maskstream.pipeline.models.find import EMBEDDED, MEMORY
from maskstream.pipeline.models.head import OBJECTNESS
from maskstream.pipeline.models.onnx_parity import compare_with_openvino
from maskstream.pipeline.onnx_graphs.files import Provenance, metadata_of
from maskstream.pipeline.quantization.calibration import prepare
from maskstream.pipeline.quantization.gate import answer_on, cosine, grid_answers
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.segmenter.model import read_card
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter
from maskstream.pipeline.segmenter.openvino_runtime import ov
from tests.support.media import moving_shapes
from tests.support.onnx_models import OnnxRunner, openvino_in_floats

LITE = EMBEDDED / "lite"
SIZES_HW = ((144, 256), (200, 150))
MOVES = {("Transpose", 0), ("Reshape", 0)}
LONG_SIDE = 256  # half of the model's, for a quarter of the work


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("floats") / "lite"
    export_onnx("lite", folder)
    return folder


@pytest.fixture(scope="module")
def int8(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "lite"
    export_onnx("lite", folder, int8=True)
    return folder


@pytest.fixture(scope="module")
def shots():
    return [moving_shapes(1, size_hw, shapes=3, seed=2)[0][0] for size_hw in SIZES_HW]


@pytest.fixture(scope="module")
def images(shots):
    card = read_card(LITE)
    return [prepare(shot, LONG_SIDE, card.multiple, card.pad_rgb, card.cell) for shot in shots]


@pytest.fixture(scope="module")
def truths(images):
    """Features of every image in OpenVINO's FP32, and its answers to clicks and boxes."""
    encoder, decoder = (openvino_in_floats(LITE / f"{n}.xml") for n in ("encoder", "decoder"))
    found = []
    for prepared in images:
        features = encoder({"image": prepared.image})
        decode = partial(answer_on, decoder, features)
        found.append((prepared, features, list(grid_answers(decode, prepared))))
    return found


def test_masks_in_onnx_runtime_are_those_of_openvino_in_floats(floats, shots):
    found = compare_with_openvino(LITE, floats, shots, threads=1)
    assert found.masks > 50
    assert found.least_iou >= 0.999
    assert found.cosine >= 0.99999


def test_masks_in_int8_are_near_those_in_floats(int8, shots):
    found = compare_with_openvino(LITE, int8, shots, threads=1)
    assert 0.97 <= found.mean_iou < 0.999
    assert 0.999 <= found.cosine < 0.99999


@pytest.mark.parametrize("precision", ["floats", "int8"])
def test_several_images_are_encoded_at_once_as_one_by_one(precision, images, request):
    encoder = OnnxRunner(request.getfixturevalue(precision) / "encoder.onnx")
    assert encoder.session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    first = images[0].image
    pair = np.concatenate([first, first[:, ::-1, ::-1]])
    together, *alone = (encoder({"image": given}) for given in (pair, pair[:1], pair[1:]))
    assert together["embedding"].shape[0] == 2
    for name, values in together.items():
        wanted = np.concatenate([each[name] for each in alone])
        assert np.abs(wanted[0] - wanted[1]).max() > 0.1 * np.abs(wanted).max()
        np.testing.assert_allclose(values, wanted, atol=1e-5 * np.abs(wanted).max())


def test_what_int8_stands_for_in_floats_is_near_the_int8_graph(truths):
    encoder = Runner(ov.Core().read_model(LITE / "encoder.xml"), threads=1)
    for prepared, features, _ in truths:
        own = encoder({"image": prepared.image})
        assert cosine(features["embedding"], own["embedding"]) >= 0.999


def test_a_mask_prompt_changes_the_answer_as_in_openvino(floats, truths):
    decoder = OnnxRunner(floats / "decoder.onnx")
    exact = openvino_in_floats(LITE / "decoder.xml")
    _, features, answers = truths[0]
    prompts, _, truth = answers[0]
    asked = prompts | {
        "mask": truth["masks"][:, :1],
        "has_mask": np.ones(len(truth["iou"]), np.float32),
    }
    wanted, found = exact(features | asked), decoder({**features, **asked})
    assert np.abs(wanted["masks"] - truth["masks"]).max() > 1
    np.testing.assert_allclose(found["masks"], wanted["masks"], atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        *((f"memory_{name}", MEMORY / f"{name}.xml") for name in GRAPHS),
        ("objectness", OBJECTNESS / "objectness.xml"),
    ],
)
def test_memory_and_objectness_give_the_numbers_of_openvino(floats, name, graph):
    lengths = {"height_s4": 48, "width_s4": 64, "height_s8": 24, "width_s8": 32}
    lengths |= {"height_s16": 12, "width_s16": 16, "objects": 2, "batch": 1}
    lengths |= {"cells": 40, "queries": 30, "value_channels": 16}
    own = OnnxRunner(floats / f"{name}.onnx")
    one_frame = name in ("memory_keys", "objectness")
    rng = np.random.default_rng(0)
    given = {}
    for port in own.session.get_inputs():
        shape = [lengths.get(n, n) if not (one_frame and n == "objects") else 1 for n in port.shape]
        given[port.name] = rng.random(shape, np.float32)
    wanted, found = openvino_in_floats(graph)(given), own(given)
    assert wanted.keys() == found.keys()
    for output, values in wanted.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[output], values, atol=1e-4 * scale, rtol=1e-4)


def quantizers(file: Path) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    model = onnx.load(file)
    return model, {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_int8_is_symmetric_with_one_scale_a_channel_of_weights(int8):
    model, constants = quantizers(int8 / "encoder.onnx")
    nodes = {node.output[0]: node for node in model.graph.node}
    weights = activations = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (constants[name] for name in node.input[1:])
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (scale > 0).all()
        if node.input[0] in constants:
            weights += 1
            stored = constants[node.input[0]]
            (axis,) = (a.i for a in node.attribute if a.name == "axis")
            assert scale.shape == (stored.shape[axis],)
            assert stored.min() >= -127
        elif node.op_type == "DequantizeLinear":
            activations += 1
            assert nodes[node.input[0]].op_type == "QuantizeLinear"
            assert scale.shape == ()
    assert weights > 30
    assert activations > 30
    for part in ("decoder", "memory_head"):
        decoder, _ = quantizers(int8 / f"{part}.onnx")
        assert "QuantizeLinear" not in {node.op_type for node in decoder.graph.node}


def test_int8_is_of_whole_layers_and_neither_of_biases_nor_of_depthwise_convolutions(int8):
    """A layer has both operands in INT8 or none; what TensorRT takes as a bias stays a float."""
    model, constants = quantizers(int8 / "encoder.onnx")
    nodes = {node.output[0]: node for node in model.graph.node}
    users = defaultdict(list)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            users[name].append((node.op_type, place))
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            of_weight = node.input[0] in constants
            place = 1 if of_weight else 0
            assert {*users[node.output[0]]} <= {("Conv", place), ("MatMul", place), *MOVES}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    kinds = Counter()
    for node in layers:
        (groups,) = [a.i for a in node.attribute if a.name == "group"] or [1]
        quantized = [is_quantized(nodes, name) for name in node.input]
        assert len(node.input) == 2
        assert quantized[0] == quantized[1]
        kinds[groups > 1, quantized[0]] += 1
    assert kinds[True, True] == 0
    assert kinds[True, False] == 16  # EfficientNet-Lite0's blocks
    assert kinds[False, True] > 2 * kinds[False, False]


def is_quantized(nodes, name) -> bool:
    while name in nodes and (nodes[name].op_type, 0) in MOVES:
        name = nodes[name].input[0]
    return name in nodes and nodes[name].op_type == "DequantizeLinear"


def test_a_range_ends_where_a_relu6_does(int8):
    """The search of the folder's ranges may go beyond 6, which would be lost to no value."""
    model, constants = quantizers(int8 / "encoder.onnx")
    nodes = {node.output[0]: node for node in model.graph.node}
    scales = [
        float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and nodes[node.input[0]].op_type in ("Clip", "Relu")
    ]
    assert len(scales) > 10
    assert max(scales) <= 6 / 127 + 1e-6


def test_files_say_what_a_runtime_must_know(floats, int8):
    for folder, precision in ((floats, "float32"), (int8, "int8")):
        for file in folder.glob("*.onnx"):
            model = onnx.load(file)
            told = {entry.key: entry.value for entry in model.metadata_props}
            expected = precision if file.stem == "encoder" else "float32"
            assert (told["part"], told["precision"]) == (file.stem, expected)
            assert told["license"] == "Apache-2.0"
            assert model.opset_import[0].version == int(told["opset"]) == 17
            layout = json.loads(told["layout"])
            assert set(layout) == {p.name for p in (*model.graph.input, *model.graph.output)}
            assert all(text.startswith(("float32 [", "uint8 [")) for text in layout.values())
    told = OnnxRunner(floats / "encoder.onnx").session.get_modelmeta().custom_metadata_map
    assert told["normalization"] == "in the graph"
    assert (told["long_side"], told["cell"], told["pad_rgb"]) == ("512", "4", "[127, 127, 127]")
    assert (told["stretched"], told["points_max"], told["score"]) == ("false", "null", "iou")
    assert "padded right and below" in json.loads(told["layout"])["image"]


def test_files_of_other_networks_say_how_these_differ():
    """EfficientSAM's frames are stretched and its points few; EdgeSAM predicts no IoU."""
    update = {"stretched": True, "points_max": 6, "mask_prompts": False, "score": "stability"}
    card = read_card(LITE).model_copy(update=update)
    layout = {}
    for part in ("encoder", "decoder"):
        graph = ov.Core().read_model(LITE / f"{part}.xml")
        told = metadata_of(part, graph, card, Provenance("x", "y"), int8=False)
        assert (told["stretched"], told["points_max"]) == ("true", "6")
        assert (told["mask_prompts"], told["score"]) == ("false", "stability")
        layout |= json.loads(told["layout"])
    assert layout["image"].endswith("stretched to long_side x long_side")
    assert "at most 6 points" in layout["xy"]
    assert "stability score" in layout["iou"]


def test_folders_that_cannot_be_exported_or_written_are_said(floats, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written: Not a directory"):
        export_onnx("lite", tmp_path / "file/lite")
    with pytest.raises(ModelError, match="a folder of OpenVINO graphs"):
        export_onnx(str(floats), tmp_path / "again")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_folder_of_graphs_that_do_not_belong_together_is_said(part, floats, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(floats, folder)
    other = "decoder" if part == "encoder" else "encoder"
    shutil.copy(folder / f"{other}.onnx", folder / f"{part}.onnx")
    with pytest.raises(ModelError, match=f"{part}.onnx is not"):
        OnnxSegmenter(folder, (144, 256), threads=1)


def test_a_symlinked_model_keeps_its_license(tmp_path):
    (tmp_path / "lite").symlink_to(LITE)
    files = write_folder_as_onnx(tmp_path / "lite", tmp_path / "onnx", int8=False)
    told = {entry.key: entry.value for entry in onnx.load(files[0]).metadata_props}
    assert told["license"] == "Apache-2.0"
