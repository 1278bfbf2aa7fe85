"""Checkpoints in ONNX: the published networks' own weights, and INT8 after quantizing."""

from shutil import copytree

import numpy as np
import onnx
import pytest
import torch

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.lab.bench.fill import filled_model
from maskstream.pipeline.models.export_onnx import export_onnx, write_folder_as_onnx
from maskstream.pipeline.models.find import EMBEDDED, content_hash
from maskstream.pipeline.models.onnx_parity import compare_with_openvino
from maskstream.pipeline.onnx_graphs.files import AXES
from maskstream.pipeline.onnx_graphs.free_batch import with_free_batch
from maskstream.pipeline.onnx_graphs.translation import to_onnx
from maskstream.pipeline.quantization.export import export_encoder
from maskstream.pipeline.segmenter.model import PromptBatch
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter
from maskstream.pipeline.segmenter.torch_segmenter import TorchSegmenter
from maskstream.pipeline.weights.cache import cache_folder
from tests.support.media import moving_shapes
from tests.support.models import write_fp32_folder
from tests.support.onnx_models import OnnxRunner

SIZE_HW = (144, 256)


@pytest.fixture
def checkpoint(tmp_path):
    """A training checkpoint of `lite` with random weights, and its network."""
    network = filled_model("lite")
    file = tmp_path / "lite.pt"
    torch.save({"config": {"model": "lite"}, "average": network.state_dict()}, file)
    return file, network


@pytest.mark.slow
def test_a_checkpoint_is_exported_with_its_own_weights(checkpoint, tmp_path):
    file, network = checkpoint
    export_onnx(str(file), tmp_path / "onnx")
    image = moving_shapes(1, SIZE_HW, shapes=3, seed=2)[0][0]
    by_torch = TorchSegmenter(network, SIZE_HW, "cpu")
    by_onnx = OnnxSegmenter(tmp_path / "onnx", SIZE_HW, threads=1)
    assert by_onnx.geometry == by_torch.geometry
    rgb = np.asarray(image.repeat(2, 0).repeat(2, 1))
    prompts = PromptBatch.boxes([[20, 30, 90, 120], [100, 10, 250, 100]])
    wanted, found = (s.decode(s.encode_rgb(rgb), prompts) for s in (by_torch, by_onnx))
    scale = np.abs(wanted.masks).max()
    np.testing.assert_allclose(found.masks, wanted.masks, atol=1e-4 * scale)
    np.testing.assert_allclose(found.iou, wanted.iou, atol=1e-4)
    told = {p.key: p.value for p in onnx.load(tmp_path / "onnx/encoder.onnx").metadata_props}
    assert told["source"] == "lite.pt"
    assert "not known" in told["license"]
    assert not list((tmp_path / "onnx").glob("memory*"))


def test_int8_of_a_checkpoint_needs_images(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="--calibration"):
        export_onnx(str(checkpoint[0]), tmp_path / "onnx", int8=True)
    assert not (tmp_path / "onnx").exists()


def test_int8_of_a_checkpoint_is_that_of_its_quantized_folder(checkpoint, tmp_path, monkeypatch):
    """The folder of the first use is taken; quantizing itself has tests of its own."""
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path / "cache"))
    file = checkpoint[0]
    copytree(EMBEDDED / "lite", cache_folder("models", f"lite-{content_hash(file)}"))
    files = export_onnx(str(file), tmp_path / "onnx", int8=True)
    encoder = onnx.load(files[0])
    assert files[0].name == "encoder.onnx"
    assert "DequantizeLinear" in {node.op_type for node in encoder.graph.node}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tinysam", "edge-sam", "efficientvit-sam-l0", "sam-vit-b"])
def test_several_images_are_encoded_at_once_as_one_by_one(name, tmp_path):
    """Windows, depthwise blocks, linear attention and absolute positions."""
    file = tmp_path / "encoder.onnx"
    graph = with_free_batch(export_encoder(filled_model(name)))
    assert graph is not None
    onnx.save(to_onnx(graph, "encoder", axes=AXES["encoder"], metadata={}), file)
    encoder = OnnxRunner(file)
    pair = np.random.default_rng(0).integers(0, 256, (2, 128, 192, 3), np.uint8)
    together, *alone = (encoder({"image": given}) for given in (pair, pair[:1], pair[1:]))
    for output, values in together.items():
        wanted = np.concatenate([each[output] for each in alone])
        np.testing.assert_allclose(values, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tinysam", "efficientvit-sam-l0", "sam-vit-b"])
def test_published_networks_give_the_numbers_of_torch(name, tmp_path):
    network = filled_model(name)
    folder = write_fp32_folder(network, tmp_path / name, max(SIZE_HW))
    write_folder_as_onnx(folder, tmp_path / "onnx", int8=False)
    by_onnx = OnnxSegmenter(tmp_path / "onnx", SIZE_HW, threads=1)
    rgb = np.asarray(moving_shapes(1, SIZE_HW, shapes=3, seed=2)[0][0])
    rgb = rgb[: by_onnx.geometry.valid_hw[0]]
    features = by_onnx.encode_rgb(rgb).tensors["embedding"]
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (network.architecture.mean, network.architecture.std)
    )
    padded = by_onnx.geometry.pad(rgb, by_onnx.card.pad_rgb)
    image = (torch.from_numpy(padded.copy()).permute(2, 0, 1)[None].float() - mean) / std
    with torch.no_grad():
        wanted = network.features(image).embedding.numpy()
    np.testing.assert_allclose(features, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tinysam", "edge-sam", "efficient-sam-ti", "efficientvit-sam-l0", "sam-vit-b"]
)
def test_masks_of_published_networks_are_those_of_openvino(name, tmp_path):
    folder = write_fp32_folder(filled_model(name), tmp_path / name, max(SIZE_HW))
    write_folder_as_onnx(folder, tmp_path / "onnx", int8=False)
    images = list(moving_shapes(2, SIZE_HW, shapes=3, seed=2)[0])
    found = compare_with_openvino(folder, tmp_path / "onnx", images)
    assert found.masks > 8
    assert found.mean_iou >= 0.999
    assert found.cosine > 0.9999
