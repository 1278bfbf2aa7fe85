"""EfficientViT-L and -XL, the encoders of EfficientViT-SAM (torch; not imported at inference).

EfficientViT: arXiv 2205.14756. As an encoder of SAM: arXiv 2402.05008 (github.com/mit-han-lab/
efficientvit), whose parameter names these modules keep, so that a published state dict loads
strictly. Convolutions on fine maps, ReLU linear attention on the two coarsest (one in L), and a
neck that fuses the last three stages on the grid of the finest of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import EncoderFeatures, ImageFeatures
from maskstream.pipeline.segmenter.layers import LayerNorm2d, upsample_bicubic, without_autocast

NORM_EPS = 1e-6  # of every norm of the published networks, the decoder's too
_HEAD_DIM = 32
_TINY = 1e-15  # keeps the division of cells whose queries are all negative from being 0 / 0
_FUSED = 3  # stages that the neck fuses


@dataclass(frozen=True, slots=True)
class EfficientViTSize:
    """Parameters of a published size.

    widths, depths, expands: of the stages, the first at stride 2, each one at half the size of the
    one before. fused: stages of dense convolutions; from `attending` on they have attention.
    scale: kernel of its second set of tokens. neck_depth, neck_expand: of the neck's blocks.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expands: tuple[int, ...]
    fused: int
    attending: int
    scale: int
    neck_depth: int
    neck_expand: int


def _large(depths: tuple[int, ...], neck_depth: int) -> EfficientViTSize:
    widths, expands = (32, 64, 128, 256, 512), (1, 4, 4, 4, 6)
    return EfficientViTSize(widths, depths, expands, 3, 4, 5, neck_depth, neck_expand=1)


def _extra_large(depths: tuple[int, ...], neck_depth: int) -> EfficientViTSize:
    widths, expands = (32, 64, 128, 256, 512, 1024), (1, 4, 4, 4, 4, 6)
    return EfficientViTSize(widths, depths, expands, 4, 4, 3, neck_depth, neck_expand=4)


SIZES = {
    "l0": _large((1, 1, 1, 4, 4), 4),
    "l1": _large((1, 1, 1, 6, 6), 8),
    "l2": _large((1, 2, 2, 8, 8), 12),
    "xl0": _extra_large((0, 1, 1, 2, 3, 3), 6),
    "xl1": _extra_large((1, 2, 2, 4, 6, 6), 12),
}
"""The published sizes by name: L for a long side of 512 pixels, XL for 1024."""


class ConvLayer(nn.Module):
    """Convolution `conv`, padded by half the kernel; batch norm `norm` or a bias; optional GELU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: bool = True,
        bias: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=bias)
        if norm:
            self.norm: nn.Module | None = nn.BatchNorm2d(cout, eps=NORM_EPS)
        else:
            self.norm = None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.gelu(x, approximate="tanh") if self.activate else x


class ResBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3)
        self.conv2 = ConvLayer(channels, channels, 3, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return out


class FusedMBConv(nn.Module):
    """A dense 3x3 convolution that expands, and a 1x1 convolution back."""

    def __init__(self, cin: int, cout: int, expand: int, stride: int = 1) -> None:
        super().__init__()
        self.spatial_conv = ConvLayer(cin, cin * expand, 3, stride)
        self.point_conv = ConvLayer(cin * expand, cout, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        out: Tensor = self.point_conv(self.spatial_conv(x))
        return out


class MBConv(nn.Module):
    """Inverted residual with a depthwise 3x3 convolution; only its end has a batch norm."""

    def __init__(self, cin: int, cout: int, expand: int, stride: int = 1) -> None:
        super().__init__()
        mid = cin * expand
        self.inverted_conv = ConvLayer(cin, mid, norm=False, bias=True)
        self.depth_conv = ConvLayer(mid, mid, 3, stride, mid, norm=False, bias=True)
        self.point_conv = ConvLayer(mid, cout, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        out: Tensor = self.point_conv(self.depth_conv(self.inverted_conv(x)))
        return out


class LinearAttention(nn.Module):
    """ReLU linear attention over all cells, with multi-scale tokens (`aggreg`).

    softmax(q k) v becomes relu(q) (relu(k) v), divided by relu(q) times the sum of relu(k): linear
    in the number of cells. Those sums pass float16's largest number, so this part is computed in
    float32 under autocast, too.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.qkv = ConvLayer(channels, wide, norm=False, activate=False)
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(wide, wide, scale, padding=scale // 2, groups=wide, bias=False),
                    nn.Conv2d(wide, wide, 1, groups=wide // _HEAD_DIM, bias=False),
                )
            ]
        )
        self.proj = ConvLayer(2 * channels, channels, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        qkv = self.qkv(x)
        both = torch.cat([qkv, *(aggregate(qkv) for aggregate in self.aggreg)], dim=1)
        with without_autocast(x):
            mixed = self._attend(both.float())
        out: Tensor = self.proj(mixed.to(x.dtype))
        return out

    def _attend(self, qkv: Tensor) -> Tensor:
        """Heads of [q | k | v], [B, 3 C, H, W], to [B, C, H, W]."""
        b, _, h, w = qkv.shape
        q, k, v = qkv.reshape(b, -1, 3, _HEAD_DIM, h * w).unbind(2)
        q, k = F.relu(q), F.relu(k)
        mixed = (v @ k.transpose(-2, -1)) @ q
        total = k.sum(-1, keepdim=True).transpose(-2, -1) @ q
        out: Tensor = mixed / (total + _TINY)
        return out.reshape(b, -1, h, w)


class Residual(nn.Module):
    """`main`, added to its input unless it changes the shape."""

    def __init__(self, main: nn.Module, *, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """As `main`."""
        y: Tensor = self.main(x)
        return x + y if self.shortcut else y


class AttentionBlock(nn.Module):
    """Linear attention across the map, then a local inverted residual."""

    def __init__(self, channels: int, expand: int, scale: int) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels, scale))
        self.local_module = Residual(MBConv(channels, channels, expand))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        out: Tensor = self.local_module(self.context_module(x))
        return out


class OpSequence(nn.Module):
    """Modules in a row, under the published name `op_list`."""

    def __init__(self, ops: Iterable[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(ops)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the last module."""
        for op in self.op_list:
            x = op(x)
        return x


class Backbone(nn.Module):
    """EfficientViT's stages; returns the output of each."""

    def __init__(self, size: EfficientViTSize) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            OpSequence(_stage(size, index)) for index in range(len(size.widths))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of an image [B, 3, H, W] at strides 2, 4, 8, ..."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


def _stage(size: EfficientViTSize, index: int) -> list[nn.Module]:
    """A block that halves the map (four times as wide inside), and the stage's own blocks."""
    width, depth, expand = size.widths[index], size.depths[index], size.expands[index]
    if index == 0:
        return [ConvLayer(3, width, 3, 2), *(Residual(ResBlock(width)) for _ in range(depth))]
    before = size.widths[index - 1]
    if index < size.fused:
        first = FusedMBConv(before, width, 4 * expand, 2)
        blocks = [Residual(FusedMBConv(width, width, expand)) for _ in range(depth)]
        return [Residual(first, shortcut=False), *blocks]
    halve = Residual(MBConv(before, width, 4 * expand, 2), shortcut=False)
    if index < size.attending:
        return [halve, *(Residual(MBConv(width, width, expand)) for _ in range(depth))]
    return [halve, *(AttentionBlock(width, expand, size.scale) for _ in range(depth))]


class Neck(nn.Module):
    """Fuse the last stages, coarsest first, resampled to one grid and width."""

    def __init__(self, size: EfficientViTSize, embed_dim: int) -> None:
        super().__init__()
        self.input_ops = nn.ModuleList(
            OpSequence([ConvLayer(width, embed_dim, activate=False)])
            for width in size.widths[: -_FUSED - 1 : -1]
        )
        blocks = (
            FusedMBConv(embed_dim, embed_dim, size.neck_expand) for _ in range(size.neck_depth)
        )
        self.middle = OpSequence(map(Residual, blocks))
        end = ConvLayer(embed_dim, embed_dim, norm=False, bias=True, activate=False)
        self.output_ops = nn.ModuleList([OpSequence([end])])

    def forward(self, stages: list[Tensor]) -> Tensor:
        """[B, C, h, w] on the grid of the finest of the stages, given coarsest first."""
        fused = [
            op(x) if index + 1 == _FUSED else upsample_bicubic(op(x), 2 ** (_FUSED - 1 - index))
            for index, (op, x) in enumerate(zip(self.input_ops, stages, strict=True))
        ]
        out: Tensor = self.output_ops[0](self.middle(sum(fused[1:], fused[0])))
        return out


class EfficientViTEncoder(nn.Module):
    """Image encoder of EfficientViT-SAM.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of `multiple`, any aspect and size;
    the published weights were trained on squares of 512 (L) or 1024 pixels (XL). Attention takes
    the mean over all cells, so the padding has a small influence.
    """

    def __init__(self, size: EfficientViTSize, embed_dim: int = 256) -> None:
        super().__init__()
        self.multiple = 2 ** len(size.widths)
        self.stride = self.multiple >> (_FUSED - 1)
        self.backbone = Backbone(size)
        self.neck = Neck(size, embed_dim)
        self.norm = LayerNorm2d(embed_dim, NORM_EPS)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The embedding of an image [B, 3, H, W] and intermediate features.

        s8 (128 channels) and s16 (256) are outputs of stages.
        """
        stages = self.backbone(x)
        embedding = self.norm(self.neck(stages[: -_FUSED - 1 : -1]))
        return EncoderFeatures(embedding, None, None, stages[2], stages[3])

    def forward(self, x: Tensor) -> ImageFeatures:
        """The embedding only; the published decoder takes no skips."""
        return ImageFeatures(self.all_features(x).embedding, None, None)
