"""TinySAM's post-training quantization: the search by itself, and a small network all the way."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskstream.pipeline.quantization.calibration import PreparedImage, prepare
from maskstream.pipeline.quantization.export import _DecoderGraph, _EncoderGraph
from maskstream.pipeline.quantization.inspect_graph import INTEGER, executed_precisions
from maskstream.pipeline.quantization.tinysam_ptq import Goal, QuantizedLayer, quantize_model
from maskstream.pipeline.quantization.tinysam_ptq.bias import correct_biases
from maskstream.pipeline.quantization.tinysam_ptq.calls import Call, Kind
from maskstream.pipeline.quantization.tinysam_ptq.fp32_layers import (
    MAX_COMPARISONS,
    Trial,
    closeness,
    layers_kept_in_fp32,
    smallest_sufficient,
)
from maskstream.pipeline.quantization.tinysam_ptq.layers import QuantizedCalls
from maskstream.pipeline.quantization.tinysam_ptq.method import folded_copy
from maskstream.pipeline.quantization.tinysam_ptq.products import sample
from maskstream.pipeline.quantization.tinysam_ptq.quantizers import (
    SYMMETRIC,
    CodeRange,
    Quantizer,
    codes_for,
)
from maskstream.pipeline.quantization.tinysam_ptq.search import (
    CANDIDATES,
    RATIOS,
    Operand,
    Product,
    importance,
    search,
)
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import (
    EfficientNetLite,
    FusionNeck,
    LiteEncoder,
    Stage,
)
from maskstream.pipeline.segmenter.encoders.tiny_vit import WindowAttention
from maskstream.pipeline.segmenter.mask_decoder import MaskDecoder
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.prompt_encoder import PromptEncoder
from maskstream.pipeline.segmenter.sam import Architecture, Sam
from tests.support.cpu import int8_is_exact

# OpenVINO traces with torch.jit, which torch has deprecated
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
U8 = CodeRange(0, 0, 255)


class SmallEncoder(LiteEncoder):
    def __init__(self, dim: int) -> None:
        nn.Module.__init__(self)
        strides = (1, 2, 2, 2, 1, 2)
        stages = tuple(Stage(1, 3, stride, 2, 8 * (i + 1)) for i, stride in enumerate(strides))
        self.backbone = EfficientNetLite(stages, stem=8)
        self.neck = FusionNeck(self.backbone.channels, dim, depth=1)


def small_sam() -> Sam:
    torch.manual_seed(0)
    dim = 32
    model = Sam(
        Architecture("small", 128, 32, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        SmallEncoder(dim),
        PromptEncoder(dim, drawn_prompts=True),
        MaskDecoder(dim, heads=4, mlp=64, iou_hidden=32, bounded_iou=True),
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def images(count: int) -> list[PreparedImage]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [prepare(p.repeat(8, 0).repeat(8, 1), 128, 32, (127, 127, 127)) for p in coarse]


@pytest.fixture(scope="module")
def model():
    return small_sam()


@pytest.fixture(scope="module")
def result(model):
    return quantize_model(model, images(2), max_images=2, ignored=["encoder.neck.skip_s4.0"])


def test_search_finds_the_scales_the_operands_were_rounded_with():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.linspace(*RATIOS, CANDIDATES)
    scale_a, scale_b = torch.tensor(0.02), torch.tensor([0.5, 0.003, 0.04])
    codes_a = torch.randint(-128, 128, (1, 1, 64, 8), generator=generator)
    codes_b = torch.randint(-128, 128, (1, 1, 8, 3), generator=generator)
    product = Product(codes_a * scale_a, codes_b * scale_b, torch.ones(1, 1, 64, 3))
    found_a, found_b = search(
        [product],
        Operand(SYMMETRIC, (scale_a / ratios[70]).reshape(1, 1, 1, 1)),
        Operand(SYMMETRIC, (scale_b / ratios[[50, 80, 99]]).reshape(1, 1, 1, 3)),
    )
    torch.testing.assert_close(found_a.flatten(), scale_a[None])
    torch.testing.assert_close(found_b.flatten(), scale_b)


def test_importance_of_small_outputs_leads_to_a_smaller_scale():
    generator = torch.Generator().manual_seed(0)
    a = torch.eye(32)[None, None]
    b = torch.randn(1, 1, 32, 2, generator=generator) * torch.tensor([10.0, 0.1])
    operands = (
        Operand(SYMMETRIC, torch.full((1, 1, 1, 1), 1 / 128)),
        Operand(SYMMETRIC, b.abs().amax().reshape(1, 1, 1, 1) / 128),
    )
    plain = torch.ones(1, 1, 32, 2)
    gradients = torch.tensor([0.0, 1.0]).expand(1, 1, 32, 2)
    _, equal = search([Product(a, b, plain)], *operands)
    _, weighted = search([Product(a, b, gradients.square() + 1e-9)], *operands)
    assert weighted < 0.2 * equal


def test_importance_never_vanishes():
    assert (importance(torch.zeros(3)) > 0).all()
    values = importance(torch.tensor([0.0, 1.0]))
    assert values[1] > 100 * values[0] > 0


def test_unsigned_codes_cover_gelu_and_softmax():
    x = torch.linspace(-5, 3, 4000)
    gelu = F.gelu(x)
    codes, scale = codes_for(float(gelu.min()), float(gelu.max()), zero_point=True)
    assert (codes.low, codes.high) == (0, 255)
    assert codes.zero_point > 0
    quantized = Quantizer(codes, torch.tensor([scale]))(gelu)
    assert (quantized - gelu).abs().max() <= 0.51 * scale + 1e-6
    assert scale < 0.55 * float(gelu.max()) / 128
    assert codes_for(0.0, 1.0, zero_point=False) == (U8, 1 / 255)
    assert codes_for(-1.0, 1.0, zero_point=False)[0] == SYMMETRIC
    assert codes_for(-0.17, 3.0, zero_point=False)[0] == SYMMETRIC


def test_bytes_of_an_image_stay_exact():
    values = (torch.arange(256) - 127) / 128
    codes, scale = codes_for(float(values.min()), float(values.max()), zero_point=True)
    torch.testing.assert_close(Quantizer(codes, torch.tensor([scale]))(values), values)


def test_search_and_graph_quantize_alike():
    x = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for codes in (SYMMETRIC, CodeRange(15, 0, 255)):
        scale = torch.tensor([0.013])
        torch.testing.assert_close(Quantizer(codes, scale)(x), codes.quantize(x, scale))


CALLS = {
    "strided, grouped": (Kind.CONVOLUTION, (2, 8, 9, 7), (6, 4, 3, 3), (2, 2), (1, 1), (1, 1), 2),
    "depthwise": (Kind.CONVOLUTION, (1, 4, 8, 8), (4, 1, 5, 5), (1, 1), (2, 2), (1, 1), 4),
    "dilated": (Kind.CONVOLUTION, (1, 4, 8, 8), (3, 4, 3, 3), (1, 1), (0, 0), (2, 2), 1),
}


def assert_sample_is_the_product(call: Call) -> None:
    taken = sample(call, torch.Generator().manual_seed(0))
    out = call.run(call.first, call.second)
    torch.testing.assert_close(taken.first @ taken.second, taken.pick(out), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS.keys())
def test_samples_of_convolutions(case):
    kind, x_shape, weight_shape, stride, padding, dilation, groups = case
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    run = partial(F.conv2d, **options)
    call = Call("", kind, True, torch.randn(x_shape), torch.randn(weight_shape), options, run)
    assert_sample_is_the_product(call)


def test_samples_of_other_layers():
    up = partial(F.conv_transpose2d, stride=(2, 2))
    x, weight = torch.randn(2, 6, 4, 5), torch.randn(6, 3, 2, 2)
    assert_sample_is_the_product(Call("", Kind.DECONVOLUTION, True, x, weight, {}, up))
    x, weight = torch.randn(2, 5, 6), torch.randn(3, 6)
    assert_sample_is_the_product(Call("", Kind.LINEAR, True, x, weight, {}, F.linear))
    for lead_a, lead_b in (((2, 4), (2, 4)), ((1,), (3,)), ((3,), (1,))):
        a, b = torch.randn(*lead_a, 100, 6), torch.randn(*lead_b, 6, 300)
        assert_sample_is_the_product(Call("", Kind.MATMUL, False, a, b, {}, torch.matmul))


class EveryKind(nn.Module):
    """A convolution, a transposed one, window attention and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, 2, 1)
        self.up = nn.ConvTranspose2d(64, 64, 2, 2)
        self.attn = WindowAttention(64, 2, 7)
        self.linear = nn.Linear(64, 32)

    def forward(self, x):
        x = self.up(F.gelu(self.conv(x)))
        return self.linear(self.attn(x.permute(0, 2, 3, 1)))


def layers_of_every_kind(heads: int) -> dict[str, QuantizedLayer]:
    def scales(count: int, value: float, axis: int | None) -> Quantizer:
        return Quantizer(SYMMETRIC, torch.full((count,), value), axis)

    axis = 1 if heads > 1 else None
    one = scales(1, 0.02, None)
    fine = scales(1, 0.003, None)
    shifted = Quantizer(CodeRange(120, 0, 255), torch.tensor([0.02]))
    softmax = Quantizer(U8, torch.full((heads,), 1 / 255), axis)
    head = scales(heads, 0.02, axis)
    pairs = {
        "conv": (Kind.CONVOLUTION, shifted, scales(64, 0.002, 0)),
        "up": (Kind.DECONVOLUTION, one, scales(64, 0.002, 1)),
        **{f"attn.linear{i}": (Kind.LINEAR, shifted, scales(1, 0.002, None)) for i in range(3)},
        "attn.matmul0": (Kind.MATMUL, head, head),
        "attn.matmul1": (Kind.MATMUL, softmax, head),
        "attn.proj": (Kind.LINEAR, fine, scales(1, 0.002, None)),
        "linear": (Kind.LINEAR, fine, scales(1, 0.002, None)),
    }
    return {name: QuantizedLayer(*layer, error=0.0) for name, layer in pairs.items()}


@pytest.mark.parametrize("heads", [1, 2], ids=["one scale", "split by head"])
def test_every_kind_of_layer_runs_in_integers(heads):
    torch.manual_seed(0)
    network = EveryKind().eval().requires_grad_(False)
    x = torch.randn(1, 3, 28, 28)
    with QuantizedCalls(layers_of_every_kind(heads), EveryKind):
        expected = network(x)
        graph = ov.convert_model(network, example_input=x, input=[1, 3, 28, 28])
    compiled = ov.Core().compile_model(graph, "CPU", OPTIONS)
    error = np.linalg.norm(compiled([x.numpy()])[0] - expected.numpy())
    assert error < (0.01 if int8_is_exact() else 0.03) * np.linalg.norm(expected.numpy())
    assert not torch.equal(network(x), expected)
    executed = executed_precisions(compiled)
    for kind, count in (("Convolution", 1), ("Deconvolution", 1), ("FullyConnected", 5)):
        assert executed[kind].total() == count
        assert executed[kind].keys() <= INTEGER
    products = executed.get("MatMul", Counter()) + executed["Subgraph"]
    assert sum(products[precision] for precision in INTEGER) >= 1


def test_folding_batch_norms_changes_nothing(model):
    folded = folded_copy(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for exact, same in zip(model.encode(x), folded.encode(x), strict=True):
            torch.testing.assert_close(same, exact, atol=1e-4, rtol=1e-4)


def test_encoder_graph_computes_what_torch_does(model, result):
    compiled = ov.Core().compile_model(result.encoder, "CPU", OPTIONS)
    graph = _EncoderGraph(folded_copy(model))
    image = images(3)[2].image
    exact = graph(torch.from_numpy(image))[0].numpy()
    with QuantizedCalls(result.layers, _EncoderGraph):
        expected = graph(torch.from_numpy(image))[0].numpy()
    actual = compiled([image])["embedding"]
    tolerance = 0.02 if int8_is_exact() else 0.1
    assert np.linalg.norm(actual - expected) < tolerance * np.linalg.norm(expected)
    cosine = (actual * exact).sum() / np.linalg.norm(actual) / np.linalg.norm(exact)
    assert (0.99 if int8_is_exact() else 0.95) < cosine < 0.999999


def test_convolutions_pad_by_themselves(result):
    assert "Pad" not in {layer.get_type_name() for layer in result.encoder.get_ops()}


def test_small_network_runs_in_integers(result):
    encoder, decoder = (
        executed_precisions(ov.Core().compile_model(graph, "CPU", OPTIONS))
        for graph in (result.encoder, result.decoder)
    )
    convolutions = encoder["Convolution"]
    assert sum(convolutions[p] for p in INTEGER) == convolutions.total() - 1  # one is ignored
    for kind in ("FullyConnected", "MatMul"):
        assert sum(decoder[kind][p] for p in INTEGER) > 0.6 * decoder[kind].total()


def test_every_layer_is_quantized_or_has_a_reason(result):
    assert result.kept_in_fp32["encoder.neck.skip_s4.0"] == "asked for"
    assert not result.layers.keys() & result.kept_in_fp32.keys()
    assert all(result.kept_in_fp32.values())
    assert len(result.layers) > 3 * len(result.kept_in_fp32)
    assert all(0 < layer.error <= 0.03 for layer in result.layers.values())
    text = str(result.layers["encoder.backbone._conv_stem"])
    assert "convolution" in text
    assert "8 scales" in text


def coarse(layer: QuantizedLayer) -> QuantizedLayer:
    """The layer with a much coarser activation."""
    return replace(layer, first=replace(layer.first, scale=40 * layer.first.scale))


def test_bias_correction_takes_the_mean_error_of_a_channel_away(model, result):
    encoder = _EncoderGraph(folded_copy(model))
    name = "encoder.neck.from_s16.0"
    image = torch.from_numpy(images(1)[0].image)

    def output(layers: dict[str, QuantizedLayer]) -> torch.Tensor:
        found = []
        hook = encoder.get_submodule(name).register_forward_hook(lambda *a: found.append(a[2]))
        with torch.no_grad(), QuantizedCalls(layers, _EncoderGraph):
            encoder(image)
        hook.remove()
        return found[0].mean((0, 2, 3))

    plain = {name: replace(coarse(result.layers[name]), shift=None)}
    corrected = correct_biases(encoder, plain, images(1))
    exact = output({})
    before, after = ((output(layers) - exact).abs().max() for layers in (plain, corrected))
    assert after < 0.01 * before


def test_the_most_harmful_layer_goes_back_into_float(model, result):
    folded = folded_copy(model)
    networks = (_EncoderGraph(folded), _DecoderGraph(folded))
    judged, harmful = images(2), "encoder.neck.from_s16.0"
    layers = {k: v for k, v in result.layers.items() if k.startswith("encoder.neck")}
    fine = closeness([Trial(networks, p) for p in judged], layers).cosine
    layers[harmful] = coarse(layers[harmful])
    said = []
    assert layers_kept_in_fp32(networks, layers, judged, Goal(0.0, 0.0), said.append) == {}
    assert len(said) == 1
    goal = Goal(0.0, 1 - 1.2 * (1 - fine))
    floats = layers_kept_in_fp32(networks, layers, judged, goal, said.append)
    assert list(floats) == [harmful]
    assert "alone costs" in floats[harmful]
    everything = layers_kept_in_fp32(networks, layers, judged, Goal(1.1, 0.0), said.append)
    assert everything.keys() == layers.keys()


@pytest.mark.parametrize(("answer", "said"), [(1, 1), (2, 3), (20, 21), (63, 67), (118, 118)])
def test_bisection_asks_seldom(answer, said):
    asked = []

    def enough(count: int) -> bool:
        asked.append(count)
        return count >= answer

    assert smallest_sufficient(118, enough) == said
    assert len(asked) <= MAX_COMPARISONS
