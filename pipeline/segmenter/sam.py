"""Promptable segmentation network in torch, and the registry of architectures.

Only training, conversion and CUDA use this module; inference on the CPU reads OpenVINO graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from torch import Tensor, nn

from maskstream.pipeline.segmenter.efficient_sam import (
    POINTS,
    EfficientSamMaskDecoder,
    PointPromptEncoder,
)
from maskstream.pipeline.segmenter.encoders import efficient_vit, plain_vit, stretched_vit
from maskstream.pipeline.segmenter.encoders.efficient_vit import EfficientViTEncoder
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import (
    LITE0_STAGES,
    LITE2_STAGES,
    EncoderFeatures,
    ImageFeatures,
    LiteEncoder,
    Stage,
)
from maskstream.pipeline.segmenter.encoders.plain_vit import PlainViTEncoder
from maskstream.pipeline.segmenter.encoders.rep_vit import RepViTEncoder
from maskstream.pipeline.segmenter.encoders.stretched_vit import StretchedViTEncoder
from maskstream.pipeline.segmenter.encoders.tiny_vit import TinyViTEncoder
from maskstream.pipeline.segmenter.geometry import GRID_STRIDE
from maskstream.pipeline.segmenter.mask_decoder import (
    DecoderOutput,
    MaskDecoder,
    MaskDecoderBase,
)
from maskstream.pipeline.segmenter.model import Score
from maskstream.pipeline.segmenter.prompt_encoder import (
    PromptEncoder,
    PromptEncoderBase,
    cell_centers,
)


class ImageEncoder(Protocol):
    """Interface of image encoders beside their forward pass."""

    def all_features(self, x: Tensor) -> EncoderFeatures:
        """All features of a normalized image [B, 3, H, W]."""


PublishedEncoder = (
    EfficientViTEncoder | PlainViTEncoder | RepViTEncoder | StretchedViTEncoder | TinyViTEncoder
)

LITE_EVERYTHING = {
    "iou_min": 0.4,
    "stability_min": 0.0,
    "done_logit": 0.0,
    "done_masks": 12,
    "neighbor_min": 0.38,
}
"""Everything-mode settings of `lite`, whose logits are shallower than SAM's."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Properties of a network that callers need.

    long_side: the input's long side, pixels. multiple: height and width are multiples of it. mean,
    std: of RGB in 0..255. cell: input pixels per cell of the low-res logits; a cell of the
    embedding has 4 x 4 of them. Prompt coordinates are in 0..1 of the padded square, whatever a
    paper uses. The rest: as in `ModelCard`.
    """

    name: str
    long_side: int
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    cell: int = GRID_STRIDE
    stretched: bool = False
    points_max: int | None = None
    score: Score = "iou"
    everything: Mapping[str, float] = field(default_factory=dict)
    encoder_work: float = 300.0


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder, with the published key prefixes."""

    def __init__(
        self,
        architecture: Architecture,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoderBase,
        mask_decoder: MaskDecoderBase,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    def encode(self, image: Tensor) -> ImageFeatures:
        """Features of a normalized image [B, 3, H, W]."""
        features: ImageFeatures = self.image_encoder(image)
        return features

    def features(self, image: Tensor) -> EncoderFeatures:
        """Output of `encode` and the backbone's features at strides 8 and 16."""
        encoder = cast(ImageEncoder, self.image_encoder)
        return encoder.all_features(image)

    def decode(
        self,
        features: ImageFeatures,
        xy: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        grid: Tensor | None = None,
    ) -> DecoderOutput:
        """Masks for B prompts; arguments as `PromptEncoder.forward`, features of batch 1 or B.

        grid: by default from the mask prompt's size.
        """
        if grid is None:
            grid = cell_centers(mask.shape[-2], mask.shape[-1]).to(mask.device)
        sparse, dense = self.prompt_encoder(xy, labels, mask, has_mask, grid)
        out: DecoderOutput = self.mask_decoder(
            features.embedding,
            self.prompt_encoder.dense_pe(grid),
            sparse,
            dense,
            features.skip_s4,
            features.skip_s8,
        )
        return out


def _lite(
    name: str,
    *,
    long_side: int = 512,
    stages: tuple[Stage, ...] = LITE0_STAGES,
    neck_depth: int = 2,
    decoder_depth: int = 2,
) -> Sam:
    dim = 128
    return Sam(
        Architecture(
            name,
            long_side,
            32,
            (127.0, 127.0, 127.0),
            (128.0, 128.0, 128.0),
            everything=LITE_EVERYTHING,
            encoder_work=58.0,
        ),
        LiteEncoder(dim, neck_depth, stages),
        PromptEncoder(dim, mask_channels=16, drawn_prompts=True),
        MaskDecoder(dim, depth=decoder_depth, heads=8, mlp=1024, iou_hidden=128, bounded_iou=True),
    )


def _published(
    name: str, image_encoder: PublishedEncoder, long_side: int = 1024, **others: Any
) -> Architecture:
    """Properties with SAM's normalization; others: fields of `Architecture`."""
    return Architecture(
        name,
        long_side,
        image_encoder.multiple,
        (123.675, 116.28, 103.53),
        (58.395, 57.12, 57.375),
        image_encoder.stride // 4,
        **others,
    )


def sam_with(
    name: str, image_encoder: PublishedEncoder, long_side: int = 1024, score: Score = "iou"
) -> Sam:
    """A network with SAM's own prompt encoder, mask decoder and normalization."""
    dim = 256
    return Sam(
        _published(name, image_encoder, long_side, score=score),
        image_encoder,
        PromptEncoder(dim),
        MaskDecoder(dim, mlp=2048, iou_hidden=256),
    )


def _tiny_vit_sam(name: str) -> Sam:
    return sam_with(name, TinyViTEncoder())


def _edge_sam() -> Sam:
    # The authors did not distill the predicted IoU and choose masks by their stability.
    return sam_with("edge-sam", RepViTEncoder(), score="stability")


def _efficient_sam(size: str) -> Sam:
    encoder = StretchedViTEncoder(stretched_vit.SIZES[size])
    return Sam(
        _published(f"efficient-sam-{size}", encoder, stretched=True, points_max=POINTS),
        encoder,
        PointPromptEncoder(),
        EfficientSamMaskDecoder(),
    )


def _vit_sam(size: str) -> Sam:
    return sam_with(f"sam-vit-{size}", PlainViTEncoder(plain_vit.SIZES[size]))


def _efficient_vit_sam(size: str) -> Sam:
    encoder = EfficientViTEncoder(efficient_vit.SIZES[size])
    model = sam_with(f"efficientvit-sam-{size}", encoder, 64 * encoder.stride)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = efficient_vit.NORM_EPS  # the authors also set it for the decoder
    return model


BUILDERS: dict[str, Callable[[], Sam]] = {
    "lite": partial(_lite, "lite"),
    "lite-teacher": partial(
        _lite,
        "lite-teacher",
        long_side=640,
        stages=LITE2_STAGES,
        neck_depth=4,
        decoder_depth=3,
    ),
    "tinysam": partial(_tiny_vit_sam, "tinysam"),
    "mobilesam": partial(_tiny_vit_sam, "mobilesam"),
    "edge-sam": _edge_sam,
    **{f"efficient-sam-{s}": partial(_efficient_sam, s) for s in stretched_vit.SIZES},
    **{f"efficientvit-sam-{s}": partial(_efficient_vit_sam, s) for s in efficient_vit.SIZES},
    **{f"sam-vit-{s}": partial(_vit_sam, s) for s in plain_vit.SIZES},
}


def build(name: str) -> Sam:
    """Build a network by its registry name, with random weights."""
    return BUILDERS[name]()
