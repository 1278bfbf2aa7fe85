"""Validation on the held-back split: mean IoU from a box and from one click."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.segmenter.sam import Sam
from pipeline.training.data import Image, Labels, Source, pad_to
from pipeline.training.losses import mask_iou
from pipeline.training.prompts import boxes_of


def fit(image: Image, labels: Labels, long_side: int, multiple: int) -> tuple[Image, Labels]:
    """Scale to the long side and pad right and below to the multiple with the mean's grey."""
    h, w = labels.shape
    scale = long_side / max(h, w)
    new_h, new_w = round(h * scale), round(w * scale)
    scaled = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_AREA)
    ids = cv2.resize(labels, (new_w, new_h), interpolation=cv2.INTER_NEAREST)
    padded_size = (new_h + -new_h % multiple, new_w + -new_w % multiple)
    return pad_to(np.asarray(scaled, np.uint8), np.asarray(ids, np.int32), padded_size)


def normalise(images: np.ndarray, model: Sam) -> Tensor:
    """RGB uint8 [B, H, W, 3] to the network's float [B, 3, H, W], channels last."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32)
    mean = torch.tensor(model.architecture.mean)[:, None, None]
    std = torch.tensor(model.architecture.std)[:, None, None]
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _click(mask: np.ndarray) -> tuple[float, float]:
    """The pixel farthest from the object's border, (x, y)."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x), float(y)


@torch.no_grad()
def validate(
    model: Sam,
    sources: list[Source],
    *,
    long_side: int,
    images_per_source: int = 4,
    objects_per_image: int = 6,
) -> dict[str, dict[str, float]]:
    """Mean IoU at stride 4 by source: {"box", "click1"}, with the macro average as "macro"."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    model.eval()
    for source in sources:
        for item in source.held_back[:images_per_source]:
            image, labels = fit(*item.load(), long_side, model.architecture.multiple)
            ids, counts = np.unique(labels, return_counts=True)
            ids = ids[(ids > 0) & (counts >= 0.001 * labels.size)]
            if len(ids) == 0:
                continue
            rng = np.random.default_rng(0)
            ids = rng.permutation(ids)[:objects_per_image]
            full = np.stack([labels == i for i in ids])
            truth = torch.from_numpy(full.astype(np.float32))
            small = torch.nn.functional.avg_pool2d(truth[:, None], 4)[:, 0]
            features = model.encode(normalise(image[None], model))
            empty = torch.zeros(len(ids), 1, *small.shape[1:])
            side = max(labels.shape)
            box = boxes_of(truth).reshape(-1, 2, 2)
            clicks = torch.tensor([_click(m) for m in full])[:, None]
            points = torch.cat([(clicks + 0.5) / side, torch.zeros_like(clicks)], 1)
            for kind, xy, labels_of in (("box", box, (2, 3)), ("click1", points, (1, -1))):
                prompt = torch.tensor([labels_of]).expand(len(ids), 2)
                out = model.decode(features, xy, prompt, empty, torch.zeros(len(ids)))
                best = (
                    torch.zeros(len(ids), dtype=torch.long)
                    if kind == "box"
                    else out.iou[:, 1:].argmax(1) + 1
                )
                chosen = out.masks[torch.arange(len(ids)), best]
                scores[source.name][kind] += mask_iou(chosen, small).tolist()
    table = {
        name: {kind: float(np.mean(values)) for kind, values in kinds.items()}
        for name, kinds in scores.items()
    }
    if table:
        table["macro"] = {
            kind: float(np.mean([row[kind] for row in table.values()]))
            for kind in ("box", "click1")
        }
    return table
