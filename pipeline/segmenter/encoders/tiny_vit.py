"""TinyViT-5M, the image encoder of TinySAM and MobileSAM (torch; not imported at inference).

TinyViT: arXiv 2207.10666. As an encoder of SAM: MobileSAM (arXiv 2306.14289) and TinySAM (arXiv
2312.13789, github.com/xinghaochen/TinySAM), whose parameter names these modules keep, so that a
published state dict loads strictly. Differences from the classifier: the last merging has stride 1,
and a convolutional neck replaces the classification head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import EncoderFeatures, ImageFeatures
from maskstream.pipeline.segmenter.layers import ConvBN, from_windows, sam_neck, to_windows

_DIMS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_HEADS = (2, 4, 5, 10)
_WINDOWS = (7, 7, 14, 7)
_MERGE_STRIDES = (2, 2, 1)
_EXPAND = 4
_IMAGENET_CLASSES = 1000


class PatchEmbed(nn.Module):
    """The stem: two strided convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvBN(3, channels // 2, 3, 2), nn.GELU(), ConvBN(channels // 2, channels, 3, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, C, H/4, W/4]."""
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Inverted residual; the last GELU comes after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        mid = channels * _EXPAND
        self.conv1 = ConvBN(channels, mid, 1)
        self.conv2 = ConvBN(mid, mid, 3, groups=mid)
        self.conv3 = ConvBN(mid, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Change of channels and, with stride 2, of resolution."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(cin, cout, 1)
        self.conv2 = ConvBN(cout, cout, 3, stride, groups=cout)
        self.conv3 = ConvBN(cout, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, H/stride, W/stride]."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a bias learned per head and |dy|, |dx|."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.scale = (dim // heads) ** -0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)  # laid out per head as [q | k | v]
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        offsets = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("attention_bias_idxs", offsets, persistent=False)
        self.attention_bias_idxs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Attend within the windows of a map [B, H, W, C].

        The map is padded with zeros at the bottom and right to whole windows. The padding passes
        through the layer norm, which makes it the norm's bias, and takes part in the softmax, as in
        the training of the published weights.
        """
        side = self.window
        return from_windows(self._attend(to_windows(x, side)), side, x)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention among the n tokens of each window, [B, n, C].

        The three projections are applied separately: splitting their joint result costs a copy.
        """
        _, n, c = x.shape
        x = self.norm(x)
        weights = self.qkv.weight.reshape(self.heads, 3, -1, c)
        biases = self.qkv.bias.reshape(self.heads, 3, -1)
        q, k, v = (
            F.linear(x, weights[:, i].reshape(c, c), biases[:, i].flatten())
            .reshape(-1, n, self.heads, c // self.heads)
            .transpose(1, 2)
            for i in range(3)
        )
        bias = self.attention_biases[:, self.attention_bias_idxs]
        scores = torch.softmax((q * self.scale) @ k.transpose(-2, -1) + bias, dim=-1)
        out: Tensor = self.proj((scores @ v).transpose(1, 2).reshape(-1, n, c))
        return out


class FeedForward(nn.Module):
    """Layer norm and two linear layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """Window attention, a 3x3 depthwise convolution (no residual) and an MLP.

    Both sums are of maps, not of tokens: their activations are quantized per channel, which NNCF
    assumes to be the second axis.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)
        self.mlp = FeedForward(dim, dim * _EXPAND)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        b, c, h, w = x.shape
        cells = x.flatten(2).transpose(1, 2).reshape(b, h, w, c)
        x = x + self.attn(cells).reshape(b, h * w, c).transpose(1, 2).reshape(x.shape)
        x = self.local_conv(x)
        tokens: Tensor = self.mlp(x.flatten(2).transpose(1, 2))
        return x + tokens.transpose(1, 2).reshape(x.shape)


class Stage(nn.Module):
    """Blocks at one resolution, and the merging before the next stage."""

    def __init__(self, index: int) -> None:
        super().__init__()
        dim, depth = _DIMS[index], _DEPTHS[index]
        self.blocks = nn.Sequential(
            *(
                MBConv(dim) if index == 0 else TinyViTBlock(dim, _HEADS[index], _WINDOWS[index])
                for _ in range(depth)
            )
        )
        self.downsample = (
            PatchMerging(dim, _DIMS[index + 1], _MERGE_STRIDES[index])
            if index < len(_MERGE_STRIDES)
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's output, and the input of the next stage."""
        x = self.blocks(x)
        return x, self.downsample(x)


class TinyViTEncoder(nn.Module):
    """Image encoder of TinySAM and MobileSAM.

    Input: normalized RGB float [B, 3, H, W], H and W multiples of 16, any aspect and size; the
    published weights were trained on 1024 x 1024. `norm_head` and `head` are the classifier's:
    checkpoints contain them, but they are unused.
    """

    stride = 16
    multiple = 16

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(_DIMS[0])
        self.layers = nn.ModuleList(Stage(index) for index in range(len(_DIMS)))
        self.norm_head = nn.LayerNorm(_DIMS[-1])
        self.head = nn.Linear(_DIMS[-1], _IMAGENET_CLASSES)
        self.neck = sam_neck(_DIMS[-1], embed_dim)

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """The embedding of an image [B, 3, H, W] and intermediate features.

        s8 (128 channels) and s16 (160) are the outputs of the second and the third stage, taken
        before the merging that follows them.
        """
        x = self.patch_embed(x)
        outputs = []
        for stage in self.layers:
            output, x = stage(x)
            outputs.append(output)
        _, s8, s16, _ = outputs
        return EncoderFeatures(self.neck(x), None, None, s8, s16)

    def forward(self, x: Tensor) -> ImageFeatures:
        """The embedding only; the published decoder takes no skips."""
        return ImageFeatures(self.all_features(x).embedding, None, None)
