"""Scenes of three classes with exact masks: textured discs, squares and triangles."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskstream.pipeline.types import RgbImage, SizeHW

CLASSES = ("disc", "square", "triangle")


@dataclass(frozen=True)
class Shape:
    """One shape. kind: number of its class; center: (x, y) and side, pixels; angle: degrees."""

    kind: int
    center: tuple[float, float]
    side: float
    angle: float
    color: tuple[int, int, int]

    def mask(self, size_hw: SizeHW) -> NDArray[np.bool_]:
        image = np.zeros(size_hw, np.uint8)
        center = tuple(round(value) for value in self.center)
        if self.kind == 0:
            cv2.circle(image, center, round(self.side / 2), 1, -1)
        else:
            corners = 4 if self.kind == 1 else 3
            radius = self.side / np.sqrt(2) if self.kind == 1 else self.side / np.sqrt(3)
            turns = np.radians(self.angle + 45) + 2 * np.pi * np.arange(corners) / corners
            points = np.array(self.center) + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
            cv2.fillPoly(image, [np.rint(points).astype(np.int32)], 1)
        return image.astype(bool)


def background(rng: np.random.Generator, size_hw: SizeHW) -> RgbImage:
    """A low-contrast texture."""
    height, width = size_hw
    coarse = rng.integers(70, 150, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def draw(ground: RgbImage, shapes: list[Shape]) -> tuple[RgbImage, NDArray[np.uint8]]:
    """Draw shapes over a background, later ones in front; also the label map, n the n-th shape."""
    image, labels = ground.copy(), np.zeros(ground.shape[:2], np.uint8)
    rows, columns = np.indices(labels.shape)
    for number, shape in enumerate(shapes, 1):
        inside = shape.mask(labels.shape)
        x, y = (round(value) for value in shape.center)  # the grain moves with the shape
        grain = 12 * (((rows[inside] - y) // 5 + (columns[inside] - x) // 5) % 2)
        image[inside] = np.array(shape.color, np.uint8) + grain[:, None].astype(np.uint8)
        labels[inside] = number
    return image, labels


def random_color(rng: np.random.Generator, kind: int) -> tuple[int, int, int]:
    """A saturated color: reds for discs, greens for squares, blues for triangles."""
    hue = (60 * kind + rng.integers(-15, 16)) % 180
    hsv = np.array([[[hue, 255, rng.choice([110, 235])]]], np.uint8)
    return tuple(int(value) for value in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])


def labeled_clip(
    count: int, size_hw: SizeHW = (270, 480), *, seed: int = 0, kinds: tuple[int, ...] = (0, 1, 2)
) -> tuple[RgbImage, NDArray[np.uint8]]:
    """Shapes that move slowly beside one another: frames and label maps, one shape a class number.

    Returns frames uint8 [T, H, W, 3] and labels uint8 [T, H, W]; n is the n-th of `kinds`.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    ground = background(rng, size_hw)
    colors = [random_color(rng, kind) for kind in kinds]
    side = 0.33 * height
    frames, labels = [], []
    for t in range(count):
        shapes = []
        for n, (kind, color) in enumerate(zip(kinds, colors, strict=True)):
            x = width * (n + 0.5) / len(kinds) + 0.05 * width * np.sin(0.12 * t + n)
            y = height / 2 + 0.2 * height * np.sin(0.1 * t + 2 * n)
            shapes.append(Shape(kind, (x, y), side, 2.0 * t, color))
        frame, truth = draw(ground, shapes)
        frames.append(frame)
        labels.append(truth)
    return np.stack(frames), np.stack(labels)
