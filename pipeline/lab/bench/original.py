"""Calls the original's decoder: torch, FP32, all prompts at once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskstream.pipeline.lab.bench.sample_images import sample_points
from maskstream.pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from maskstream.pipeline.segmenter.sam import Sam


def torch_decode(model: Sam, features: ImageFeatures, count: int) -> Callable[[], object]:
    """A callable that decodes `count` single points."""
    h, w = features.embedding.shape[-2:]
    xy = torch.zeros(count, 2, 2)
    xy[:, :1] = torch.from_numpy(sample_points(count))
    labels = torch.tensor([[1.0, -1.0]]).expand(count, 2)
    mask, has_mask = torch.zeros(count, 1, 4 * h, 4 * w), torch.zeros(count)
    return lambda: model.decode(features, xy, labels, mask, has_mask)
