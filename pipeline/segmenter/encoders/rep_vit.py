"""RepViT-M1, the image encoder of EdgeSAM (torch; not imported at inference).

RepViT: arXiv 2307.09283. As an encoder of SAM: EdgeSAM (arXiv 2312.06660, github.com/chongzhou96/
EdgeSAM), whose parameter names these modules keep, so that a published state dict loads strictly.
Differences from the classifier: the last two stages are fused, and a convolutional neck replaces
the classification head.
"""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import EncoderFeatures, ImageFeatures
from maskstream.pipeline.segmenter.layers import ConvBN, sam_neck, upsample_bicubic

_WIDTHS = (48, 96, 192, 384)  # channels of the stages, at strides 4, 8, 16, 32
_DEPTHS = (3, 4, 16, 3)  # blocks of the stages, with the one that changes the stride
_SQUEEZE = 4  # channels per channel of a squeeze-and-excitation's bottleneck


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from the means of all (as in timm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = _round_to_8(channels // _SQUEEZE)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))


def _round_to_8(channels: int) -> int:
    return (channels + 4) // 8 * 8


class RepDepthwise(nn.Module):
    """Depthwise 3x3 and 1x1 convolutions and the identity, summed; for inference as one 3x3.

    The same function in fewer operations (as in RepViT's own deployment).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels, 3, groups=channels)
        self.conv1 = ConvBN(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        if self.training:
            out: Tensor = self.conv(x) + self.conv1(x) + x
            return out
        weight, bias = _folded(self.conv)
        weight1, bias1 = _folded(self.conv1)
        merged = weight + F.pad(weight1 + 1, (1, 1, 1, 1))
        return F.conv2d(x, merged, bias + bias1, padding=1, groups=len(bias))


def _folded(layer: ConvBN) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm."""
    conv, norm = cast(nn.Conv2d, layer.c), cast(nn.BatchNorm2d, layer.bn)
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return conv.weight * scale[:, None, None, None], norm.bias - mean * scale


class ChannelMixer(nn.Module):
    """Two 1x1 convolutions with twice the channels between them, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            ConvBN(channels, 2 * channels, 1), nn.GELU(), ConvBN(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        out: Tensor = x + self.m(x)
        return out


class Block(nn.Module):
    """Mixes cells, then channels. If the channels change, the resolution is halved."""

    def __init__(self, cin: int, cout: int, *, squeeze: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(cin) if squeeze else nn.Identity()
        if cin == cout:
            self.token_mixer = nn.Sequential(RepDepthwise(cin), gate)
        else:
            halve = ConvBN(cin, cin, 3, 2, groups=cin)
            self.token_mixer = nn.Sequential(halve, gate, ConvBN(cin, cout, 1))
        self.channel_mixer = ChannelMixer(cout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H, W], or half of H and W."""
        out: Tensor = self.channel_mixer(self.token_mixer(x))
        return out


class _CoarseStage(nn.Module):
    """The coarsest stage on the grid of the one before; `op_list` is the published name."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.op_list = nn.ModuleList([nn.Conv2d(channels, embed_dim, 1, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        return upsample_bicubic(self.op_list[0](x), 2)


def _stage(index: int) -> list[Block]:
    """Blocks of a stage: the first one halves the resolution, but for the first stage.

    Every other block has squeeze-and-excitation, beginning with the first that keeps its
    resolution; the last block of a stage has none.
    """
    width, depth = _WIDTHS[index], _DEPTHS[index]
    halving = [Block(_WIDTHS[index - 1], width, squeeze=False)] if index else []
    kept = depth - len(halving)
    squeezed = (block % 2 == 0 and block + 1 < kept for block in range(kept))
    return [*halving, *(Block(width, width, squeeze=each) for each in squeezed)]


class RepViTEncoder(nn.Module):
    """Image encoder of EdgeSAM.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of 32, any aspect and size; the
    published weights were trained on 1024 x 1024. Squeeze-and-excitation takes the mean over all
    cells, so the padding has a small influence.
    """

    stride = 16
    multiple = 32
    _stage_ends = tuple(itertools.accumulate(_DEPTHS))

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        width = _WIDTHS[0]
        stem = nn.Sequential(
            ConvBN(3, width // 2, 3, 2), nn.GELU(), ConvBN(width // 2, width, 3, 2)
        )
        blocks = (block for index in range(len(_DEPTHS)) for block in _stage(index))
        self.features = nn.ModuleList([stem, *blocks])
        self.fuse_stage2 = nn.Conv2d(_WIDTHS[2], embed_dim, 1, bias=False)
        self.fuse_stage3 = _CoarseStage(_WIDTHS[3], embed_dim)
        self.neck = sam_neck(embed_dim, embed_dim)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The embedding of an image [B, 3, H, W] and intermediate features.

        s8 (96 channels) and s16 (192) are the outputs of the second and the third stage.
        """
        stages = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self._stage_ends:
                stages.append(x)
        _, s8, s16, s32 = stages
        embedding: Tensor = self.neck(self.fuse_stage2(s16) + self.fuse_stage3(s32))
        return EncoderFeatures(embedding, None, None, s8, s16)

    def forward(self, x: Tensor) -> ImageFeatures:
        """The embedding only; the published decoder takes no skips."""
        return ImageFeatures(self.all_features(x).embedding, None, None)
