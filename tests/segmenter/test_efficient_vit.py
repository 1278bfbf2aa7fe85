"""EfficientViT's linear attention where half precision ends, and what it computes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from maskstream.pipeline.lab.bench.fill import filled
from maskstream.pipeline.quantization.calibration import prepare
from maskstream.pipeline.quantization.export import (
    _EncoderGraph,
    attention_in_fp32,
    export_encoder,
)
from maskstream.pipeline.quantization.gate import cosine
from maskstream.pipeline.quantization.nncf_method import quantize_graph
from maskstream.pipeline.quantization.runner import Runner
from maskstream.pipeline.quantization.tinysam_ptq.method import _in_linear_attention
from maskstream.pipeline.segmenter.encoders.efficient_vit import (
    SIZES,
    EfficientViTEncoder,
    LinearAttention,
)
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import Sam, sam_with
from tests.support.media import moving_shapes

CHANNELS, SIZE = 64, 32
FRAMES = list(moving_shapes(4, (72, 128), shapes=2)[0])
HALF_MOST = torch.finfo(torch.float16).max


@pytest.fixture(scope="module")
def attention() -> LinearAttention:
    torch.manual_seed(0)
    module = LinearAttention(CHANNELS, 5).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module


def softened(attention: LinearAttention, x: Tensor) -> Tensor:
    """Attention written out cell by cell: weights relu(q) relu(k), divided by their sum."""
    b, _, h, w = x.shape
    qkv = attention.qkv(x)
    both = torch.cat([qkv, attention.aggreg[0](qkv)], 1).reshape(b, -1, 96, h * w)
    q, k, v = torch.relu(both[:, :, :32]), torch.relu(both[:, :, 32:64]), both[:, :, 64:]
    weights = q.transpose(2, 3) @ k
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-15)
    mixed = (v @ weights.transpose(2, 3)).reshape(b, -1, h, w)
    out: Tensor = attention.proj(mixed)
    return out


@torch.no_grad()
def test_linear_attention_is_the_mean_of_values_by_their_weights(attention):
    x = torch.randn(1, CHANNELS, 12, 20)
    torch.testing.assert_close(attention(x), softened(attention, x), rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [1.0, 300.0], ids=["usual", "sums beyond float16"])
def test_attention_survives_half_precision(attention, size):
    """As under autocast on CUDA: float16 convolutions, whose sums over cells it cannot hold."""
    x = size * torch.randn(1, CHANNELS, SIZE, SIZE)
    exact = attention(x)
    keys = torch.relu(attention.qkv(x).reshape(1, -1, 96, SIZE * SIZE)[:, :, 32:64])
    assert (keys.sum(-1).max() > HALF_MOST) == (size > 1)
    with torch.autocast("cpu", torch.float16):
        half = attention(x)
    assert half.isfinite().all()
    assert (half - exact).abs().max() < 0.01 * exact.abs().max()


@torch.no_grad()
def test_cells_that_see_nothing_are_zero_not_nan(attention):
    mixed = attention._attend(-torch.ones(1, 96, 4, 4))
    assert (mixed == 0).all()


@pytest.fixture(scope="module")
def small() -> Sam:
    """EfficientViT-SAM L with few channels at 128 pixels."""
    torch.manual_seed(0)
    size = replace(SIZES["l0"], widths=(8, 16, 16, 32, 64), depths=(1, 1, 1, 1, 1), neck_depth=1)
    model = sam_with("small", EfficientViTEncoder(size), long_side=128)
    model.load_state_dict(filled(model.state_dict()))
    return model


@pytest.fixture(scope="module")
def encoder(small) -> ov.Model:
    """Its encoder graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of tracing
        return export_encoder(small)


def test_nncf_leaves_linear_attention_in_float_between_its_projections(encoder):
    images = [prepare(f, 128, 32, (124, 116, 104), 2).image for f in FRAMES]
    ignored = attention_in_fp32(encoder)
    graph = quantize_graph(
        encoder, [{"image": p} for p in images[::2]], ignored=ignored, correct_bias=False
    )
    assert int8_in_attention(graph) == {".qkv.conv"}
    exact, int8 = (Runner(g, 1)({"image": images[1]}) for g in (encoder, graph))
    assert cosine(exact["embedding"], int8["embedding"]) > 0.98


def test_half_precision_on_the_cpu_is_near(encoder):
    """Inference asks for f32; where an f16 hint means bf16, numbers reach as far as f32's."""
    image = prepare(FRAMES[0], 128, 32, (124, 116, 104), 2).image
    exact = Runner(encoder, 1)({"image": image})["embedding"]
    fixed = encoder.clone()
    fixed.reshape({"image": list(image.shape)})
    compiled = ov.Core().compile_model(fixed, "CPU", {"INFERENCE_PRECISION_HINT": "f16"})
    assert cosine(exact, compiled([image])["embedding"]) > 0.99


def test_so_does_tinysam_s_method(small):
    encoder = _EncoderGraph(small)
    inner = ("matmul0", "matmul2", "aggreg.0.0", "aggreg.0.1")
    attention = "encoder.backbone.stages.4.op_list.1.context_module.main"
    assert all(_in_linear_attention(encoder, f"{attention}.{name}") for name in inner)
    others = (f"{attention}.qkv.conv", f"{attention}.proj.conv", "encoder.neck.middle.op_list.0")
    assert not any(_in_linear_attention(encoder, name) for name in others)


def int8_in_attention(graph: ov.Model) -> set[str]:
    """What of linear attention takes something quantized just before it; "" is the attention."""
    return {
        op.get_friendly_name().split(".context_module.main")[1].split("/")[0]
        for op in graph.get_ops()
        if ".context_module.main" in op.get_friendly_name()
        and op.get_type_name() in {"Convolution", "GroupConvolution", "MatMul", "Divide"}
        and op.input_value(0).get_node().get_type_name() == "FakeQuantize"
    }
