"""INT8 rounding in training: the grid, the gradients, and where it acts."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from maskstream.pipeline.lab.training.video.int8_rounding import (  # noqa: E402
    Int8Rounding,
    rounded_input,
    rounded_weight,
)


def test_weights_and_inputs_are_those_that_torch_quantizes():
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-3, 1, 1, 1, 50]).view(-1, 1, 1, 1)
    scale = weight.flatten(1).abs().amax(1) / 127
    zeros = torch.zeros(5, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)
    torch.testing.assert_close(rounded_weight(weight), expected)

    x = torch.randn(2, 3, 8, 8).abs()
    expected = torch.fake_quantize_per_tensor_affine(x, float(x.max() / 255), 0, 0, 255)
    torch.testing.assert_close(rounded_input(x), expected)
    mixed = rounded_input(torch.linspace(-1, 3, 1000))
    assert len(mixed.unique()) == 256
    assert rounded_input(torch.zeros(4)).tolist() == [0] * 4


def test_gradients_pass_through_the_rounding():
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    with Int8Rounding():
        out = F.conv2d(x, weight, padding=1)
    assert not torch.equal(out, F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(out, F.conv2d(rounded_input(x), rounded_weight(weight), padding=1))
    out.sum().backward()
    assert (x.grad != 0).all()
    assert (weight.grad != 0).all()


def test_only_layers_within_the_context_are_rounded():
    linear = torch.nn.Linear(4, 4)
    x = torch.randn(2, 4)
    before = linear(x)
    with Int8Rounding():
        rounded = linear(x)
        torch.testing.assert_close(torch.relu(x), x.clamp(min=0))
    assert not torch.equal(rounded, before)
    assert torch.equal(linear(x), before)
