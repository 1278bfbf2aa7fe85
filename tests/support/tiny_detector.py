"""Train the tiny detector of the tests: a YOLO-shaped graph with masks, three classes, as ONNX.

    PYTHONPATH=FOLDER_WITH_ONNX python -m tests.support.tiny_detector tests/data/shapes-seg.onnx

It takes about two minutes on two cores and needs the package `onnx` besides the development
environment. The outputs are those of an Ultralytics export of a `-seg` network: `output0`
[1, 4 + classes + masks, anchors] (center, size, scores, mask coefficients) and `output1`
[1, masks, h / 4, w / 4] (prototypes); its names are in the metadata.
"""

from __future__ import annotations

import sys
import warnings

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.labeled_shapes import CLASSES, Shape, background, draw, random_color

SIDE = 160
MASKS = 8
STRIDES = (8, 16)
_LARGEST_PX = {8: 34.0, 16: 1e9}  # side of a box from which the next stride sees it
_STEPS = 1200


def _block(inside: int, outside: int, stride: int = 1) -> nn.Module:
    """A depthwise and a pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
        nn.BatchNorm2d(inside),
        nn.ReLU(),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


class TinyDetector(nn.Module):
    """Two strides, a head for both, and prototypes at a quarter of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.s4 = nn.Sequential(_block(8, 16, 2), _block(16, 16))
        self.s8 = nn.Sequential(_block(16, 24, 2), _block(24, 24))
        self.s16 = nn.Sequential(_block(24, 32, 2), _block(32, 32))
        self.s32 = nn.Sequential(_block(32, 32, 2), _block(32, 32))
        self.down = nn.Conv2d(32, 24, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(_block(c, c), nn.Conv2d(c, 4 + len(CLASSES) + MASKS, 1)) for c in (24, 32)
        )
        self.proto = nn.Sequential(_block(40, 24), nn.Conv2d(24, MASKS, 1))
        for head in self.heads:
            nn.init.constant_(head[-1].bias[4 : 4 + len(CLASSES)], -4.0)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw outputs [B, 4 + classes + masks, anchors] and prototypes."""
        s4 = self.s4(self.stem(images))
        s8 = self.s8(s4)
        s16 = self.s16(s8)
        s16 = s16 + F.interpolate(self.s32(s16), scale_factor=2.0)
        s8 = s8 + F.interpolate(self.down(s16), scale_factor=2.0)
        raw = [head(x).flatten(2) for head, x in zip(self.heads, (s8, s16), strict=True)]
        proto = self.proto(torch.cat([s4, F.interpolate(s8, scale_factor=2.0)], 1))
        return torch.cat(raw, 2), proto


def anchors() -> tuple[torch.Tensor, torch.Tensor]:
    """Centers (x, y) [2, N] and strides [N], pixels of the input."""
    centers, strides = [], []
    for stride in STRIDES:
        at = (torch.arange(SIDE // stride) + 0.5) * stride
        y, x = torch.meshgrid(at, at, indexing="ij")
        centers.append(torch.stack([x, y]).flatten(1))
        strides.append(torch.full((at.numel() ** 2,), float(stride)))
    return torch.cat(centers, 1), torch.cat(strides)


class Exported(nn.Module):
    """The network with decoded boxes, as it is exported: images RGB 0..1."""

    def __init__(self, network: TinyDetector) -> None:
        super().__init__()
        self.network = network
        centers, strides = anchors()
        self.register_buffer("centers", centers)
        self.register_buffer("strides", strides)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw, proto = self.network(images)
        near, far = decode(raw[:, :4], self.centers, self.strides)
        classes = len(CLASSES)
        scores = raw[:, 4 : 4 + classes].sigmoid()
        boxes = torch.cat([(near + far) / 2, far - near], 1)
        return torch.cat([boxes, scores, raw[:, 4 + classes :]], 1), proto


def decode(
    raw: torch.Tensor, centers: torch.Tensor, strides: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners [B, 2, N] of raw distances [B, 4, N]."""
    distance = F.softplus(raw) * strides
    return centers - distance[:, :2], centers + distance[:, 2:]


def sample(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """A letterboxed image uint8 [S, S, 3], and class and mask [S, S] of every visible shape."""
    height = int(rng.choice([SIDE, SIDE * 9 // 16, SIDE * 3 // 4]))
    size_hw, scale = (height * 5 // 2, SIDE * 5 // 2), 2 / 5
    shapes = [
        Shape(
            kind,
            (rng.uniform(0, size_hw[1]), rng.uniform(0, size_hw[0])),
            rng.uniform(40, 130),
            rng.uniform(0, 360),
            random_color(rng, kind),
        )
        for kind in rng.integers(len(CLASSES), size=rng.integers(1, 6)).tolist()
    ]
    image, labels = draw(background(rng, size_hw), shapes)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2))
    noise = rng.normal(0, rng.uniform(0, 6), image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    top = (SIDE - height) // 2
    canvas = np.full((SIDE, SIDE, 3), 114, np.uint8)
    small = cv2.resize(image, (SIDE, height), interpolation=cv2.INTER_AREA)
    canvas[top : top + height] = small
    found = []
    for number, shape in enumerate(shapes, 1):
        mask = np.zeros((SIDE, SIDE), np.float32)
        full = (labels == number).astype(np.float32)
        if full.sum() < 0.4 * shape.mask(size_hw).sum() or full.sum() * scale**2 < 80:
            continue
        mask[top : top + height] = cv2.resize(full, (SIDE, height), interpolation=cv2.INTER_AREA)
        found.append((shape.kind, mask > 0.5))
    return canvas, found


def loss_of(
    network: TinyDetector, images: list[np.ndarray], truth: list[list[tuple[int, np.ndarray]]]
) -> torch.Tensor:
    """Focal loss of classes, IoU of boxes, cross entropy of masks."""
    centers, strides = anchors()
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    raw, proto = network(batch)
    near, far = decode(raw[:, :4], centers, strides)
    classes = len(CLASSES)
    wanted = torch.zeros(len(images), classes, centers.shape[1])
    box_loss, mask_loss, count = torch.zeros(()), torch.zeros(()), 0
    for b, objects in enumerate(truth):
        for kind, mask in objects:
            y, x = np.nonzero(mask)
            low = torch.tensor([[float(x.min())], [float(y.min())]])
            high = torch.tensor([[float(x.max() + 1)], [float(y.max() + 1)]])
            middle, side = (low + high) / 2, float((high - low).max())
            wanted_stride = STRIDES[0] if side < _LARGEST_PX[8] else STRIDES[1]
            close = ((centers - middle).abs() <= 1.0 * strides).all(0) & (strides == wanted_stride)
            chosen = close.nonzero()[:, 0]
            if not len(chosen):
                continue
            wanted[b, kind, chosen] = 1
            n, f = near[b][:, chosen], far[b][:, chosen]
            inter = (torch.minimum(f, high) - torch.maximum(n, low)).clamp(min=0).prod(0)
            union = (f - n).prod(0) + (high - low).prod() - inter
            box_loss = box_loss + (1 - inter / union).sum()
            coefficients = raw[b, 4 + classes :, chosen[:3]]
            logits = torch.einsum("mn,mhw->nhw", coefficients, proto[b])
            target = F.avg_pool2d(torch.from_numpy(mask)[None].float(), 4)
            x0, y0 = (int(v) // 4 for v in low[:, 0])
            x1, y1 = (int(v) // 4 + 1 for v in high[:, 0])
            window = (slice(None), slice(y0, y1), slice(x0, x1))
            target = target.expand_as(logits)[window]
            mask_loss = mask_loss + F.binary_cross_entropy_with_logits(logits[window], target)
            count += len(chosen)
    scores = raw[:, 4 : 4 + classes]
    bce = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    gap = (scores.sigmoid() - wanted).abs() ** 2
    return ((gap * bce).sum() * 2 + 2 * box_loss + 4 * mask_loss) / max(count, 1)


def train(steps: int = _STEPS) -> TinyDetector:
    """Train on generated scenes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # waiting for one another, threads are slower on busy cores
    rng = np.random.default_rng(0)
    network = TinyDetector().train()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for step in range(steps):
        images, truth = zip(*(sample(rng) for _ in range(8)), strict=True)
        loss = loss_of(network, list(images), list(truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            sys.stderr.write(f"{step} {loss.item():.3f}\n")
    return network.eval()


def export(network: TinyDetector, path: str) -> None:
    """Write ONNX with the metadata of an Ultralytics export."""
    import onnx

    warnings.simplefilter("ignore")
    torch.onnx.export(
        Exported(network).eval(),
        (torch.zeros(1, 3, SIDE, SIDE),),
        path,
        input_names=["images"],
        output_names=["output0", "output1"],
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(path)
    about = {
        "description": "tiny detector of the tests of maskstream",
        "task": "segment",
        "stride": max(STRIDES),
        "imgsz": [SIDE, SIDE],
        "names": dict(enumerate(CLASSES)),
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(model, path)


if __name__ == "__main__":
    export(train(), sys.argv[1])
