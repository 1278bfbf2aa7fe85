"""Layers shared by the torch networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a [B, C, H, W] map (as in SAM)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        mean = x.mean(1, keepdim=True)
        centered = x - mean
        variance = centered.pow(2).mean(1, keepdim=True)
        normed = centered * torch.rsqrt(variance + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


class ConvBN(nn.Sequential):
    """Convolution `c` without bias, padded by half the kernel, and its batch norm `bn`."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.add_module("c", conv)
        self.add_module("bn", nn.BatchNorm2d(cout))


class MLP(nn.Module):
    """Linear layers with ReLU between them (hypernetworks and IoU head of SAM)."""

    def __init__(self, cin: int, hidden: int, cout: int, depth: int) -> None:
        super().__init__()
        sizes = [cin] + [hidden] * (depth - 1) + [cout]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """[..., cin] to [..., cout]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class TransformerMLP(nn.Module):
    """Two linear layers, ReLU (SAM's decoder) or GELU (its ViT) between them."""

    def __init__(self, dim: int, hidden: int, *, gelu: bool = False) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same shape."""
        x = self.lin1(x)
        out: Tensor = self.lin2(F.gelu(x) if self.gelu else F.relu(x))
        return out


def sam_neck(channels: int, embed_dim: int) -> nn.Sequential:
    """The neck of SAM's ViT and of TinyViT: [B, channels, h, w] to the embedding."""
    return nn.Sequential(
        nn.Conv2d(channels, embed_dim, 1, bias=False),
        LayerNorm2d(embed_dim),
        nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
        LayerNorm2d(embed_dim),
    )


def upsample_bicubic(x: Tensor, factor: int) -> Tensor:
    """Enlarge a map [B, C, h, w] to [B, C, factor * h, factor * w]."""
    return F.interpolate(x, scale_factor=float(factor), mode="bicubic", align_corners=False)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context without autocast: products of float32 tensors on x's device stay float32."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def to_windows(x: Tensor, side: int) -> Tensor:
    """Split a map [B, H, W, C] into windows of tokens, [B * windows, side * side, C].

    It is padded with zeros at the bottom and right to whole windows.
    """
    b, h, w, c = x.shape
    # rows [W * C], not cells [W, C]: OpenVINO would take W for the channels and transpose
    lines = F.pad(x.reshape(b, h, w * c), (0, -w % side * c, 0, -h % side))
    rows, columns = lines.shape[1] // side, lines.shape[2] // (side * c)
    windows = lines.reshape(b, rows, side, columns, side, c).transpose(2, 3)
    return windows.reshape(-1, side * side, c)


def from_windows(windows: Tensor, side: int, x: Tensor) -> Tensor:
    """Inverse of `to_windows(x, side)` for tokens of the same shape: a map of the shape of x."""
    b, h, w, c = x.shape
    rows, columns = (h + side - 1) // side, (w + side - 1) // side
    lines = windows.reshape(b, rows, columns, side, side, c).transpose(2, 3)
    lines = lines.reshape(b, rows * side, columns * side * c)[:, :h, : w * c]
    return lines.reshape(b, h, w, c)
