"""Segmenter that runs a torch network: half precision on CUDA, FP32 on the CPU.

It imports torch, so it is imported only to run a torch network.

On CUDA the encoder runs under `torch.autocast` in FP16: products and convolutions in half
precision, layer_norm and softmax in float32 by autocast's rules. These do not cover the custom
`LayerNorm2d`, whose input is cast to float32. The decoder runs without autocast: for coordinates in
0..1 a step of half precision is up to half a pixel at 1024, and the Fourier features amplify it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maskstream.pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from maskstream.pipeline.segmenter.layers import LayerNorm2d
from maskstream.pipeline.segmenter.mask_decoder import MASK_TOKENS
from maskstream.pipeline.segmenter.model import Decoded, Features, ModelCard, PromptBatch
from maskstream.pipeline.segmenter.sam import Sam
from maskstream.pipeline.types import Frame, SizeHW

BATCH = 16
"""Maximum of prompts decoded per call; bounds the memory."""


@dataclass(frozen=True, slots=True)
class TorchFeatures(Features):
    """Features on the network's device.

    image: float32. tensors: only features_s8 and features_s16.
    """

    image: ImageFeatures


class TorchSegmenter:
    """A torch network on one device, for one frame size.

    network: with its weights; modified in place. device: "cpu" or "cuda".
    """

    def __init__(self, network: Sam, frame_hw: SizeHW, device: str) -> None:
        architecture = network.architecture
        self.card = ModelCard(
            name=architecture.name,
            long_side=architecture.long_side,
            multiple=architecture.multiple,
            pad_rgb=_bytes(architecture.mean),
            cell=architecture.cell,
            stretched=architecture.stretched,
            mask_prompts=network.prompt_encoder.mask_prompts,
            points_max=architecture.points_max,
            score=architecture.score,
            everything=dict(architecture.everything),
            encoder_work=architecture.encoder_work,
            method=f"torch {device}",
        )
        self.geometry = self.card.fit(frame_hw)
        self._device = torch.device(device)
        self._network = network.eval().to(self._device)
        for layer in network.modules():
            if isinstance(layer, LayerNorm2d):
                layer.register_forward_pre_hook(_in_float32)
        self._mean = torch.tensor(architecture.mean, device=self._device)[:, None, None]
        self._std = torch.tensor(architecture.std, device=self._device)[:, None, None]
        self._grid = self._put(self.geometry.cell_centers())

    def encode(self, frame: Frame) -> TorchFeatures:
        """Encode a frame of the size this was made for."""
        return self.encode_rgb(frame.rgb(self.geometry.valid_hw))

    @torch.inference_mode()
    def encode_rgb(self, rgb: npt.NDArray[np.uint8]) -> TorchFeatures:
        """Encode an image already scaled to `geometry.valid_hw`, RGB uint8."""
        padded = self._put(self.geometry.pad(rgb, self.card.pad_rgb))
        image = (padded.permute(2, 0, 1)[None].float() - self._mean) / self._std
        on_cuda = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.float16, enabled=on_cuda):
            found = self._network.features(image)
        image_features = ImageFeatures(found.embedding, found.skip_s4, found.skip_s8)
        maps = {"features_s8": found.s8, "features_s16": found.s16}
        tensors = {name: x.float().cpu().numpy() for name, x in maps.items()}
        return TorchFeatures(tensors, image_features.each(torch.Tensor.float))

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode prompts in batches.

        Raises `PromptError`, as `ModelCard.check`, and `TypeError` on another segmenter's features.
        """
        self.card.check(prompts)
        if not isinstance(features, TorchFeatures):
            raise TypeError("these features were not encoded by a TorchSegmenter")
        masks = np.empty((len(prompts), MASK_TOKENS, *self.geometry.grid_hw), np.float32)
        iou = np.empty((len(prompts), MASK_TOKENS), np.float32)
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            masks[part], iou[part] = self._decode(features.image, prompts, part)
        return self.card.decoded(masks, iou)

    @torch.inference_mode()
    def _decode(
        self, image: ImageFeatures, prompts: PromptBatch, part: slice
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [b, 4, 4h, 4w] and IoU [b, 4] of one batch of prompts."""
        xy = self._put(self.geometry.normalize(prompts.xy[part]))
        if prompts.mask is None:
            mask = torch.zeros(len(xy), 1, *self.geometry.grid_hw, device=self._device)
            has_mask = torch.zeros(len(xy), device=self._device)
        else:
            mask = self._put(prompts.mask[part])
            has_mask = torch.ones(len(xy), device=self._device)
        if prompts.has_mask is not None:
            has_mask = self._put(prompts.has_mask[part])
        labels = self._put(prompts.labels[part])
        out = self._network.decode(image, xy, labels, mask, has_mask, self._grid)
        return out.masks.cpu().numpy(), out.iou.cpu().numpy()

    def _put(self, values: npt.NDArray[np.float32] | npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


def _in_float32(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


def _bytes(rgb: tuple[float, float, float]) -> tuple[int, int, int]:
    r, g, b = rgb
    return round(r), round(g), round(b)
