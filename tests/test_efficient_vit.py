"""EfficientViT's linear attention where half precision ends, and what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.segmenter.encoders.efficient_vit import LinearAttention

CHANNELS, SIZE = 64, 32
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
