"""Augmentation of training images and their label maps: crops, rotation, colors, padding."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PADDING_GRAY = 127  # closest to the mean that normalization subtracts

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strengths of the augmentation; probabilities in 0..1.

    flip_only: only horizontal flips: whole images, half of them mirrored (EfficientViT-SAM's
    recipe).
    """

    flip_only: bool = False
    min_crop: float = 0.4
    whole_image: float = 0.3
    rotate: float = 0.3
    rotate_degrees: float = 25.0
    paste: float = 0.3
    blur: float = 0.15
    noise: float = 0.1
    gray: float = 0.03
    band: float = 0.25
    largest_band: float = 0.45


def pad_to(image: Image, labels: Labels, size_hw: tuple[int, int]) -> tuple[Image, Labels]:
    """Pad right and below to `size_hw` with the mean's gray, as at inference."""
    h, w = labels.shape
    pad = ((0, size_hw[0] - h), (0, size_hw[1] - w))
    padded = np.pad(image, (*pad, (0, 0)), constant_values=PADDING_GRAY)
    return np.asarray(padded, np.uint8), np.asarray(np.pad(labels, pad), np.int32)


def fit_into(image: Image, labels: Labels, size_hw: tuple[int, int]) -> tuple[Image, Labels]:
    """Scale a whole image to the largest size that fits into `size_hw`, without padding."""
    h, w = labels.shape
    scale = min(size_hw[0] / h, size_hw[1] / w)
    size_wh = (max(1, round(w * scale)), max(1, round(h * scale)))
    scaled = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    ids = cv2.resize(labels, size_wh, interpolation=cv2.INTER_NEAREST)
    return np.asarray(scaled, np.uint8), np.asarray(ids, np.int32)


def content_size(
    rng: np.random.Generator, size_hw: tuple[int, int], augment: AugmentConfig
) -> tuple[int, int]:
    """Size of the image within the padded input: with odds `band` a side is shorter.

    Half of the padding bands are as wide as those from rounding to the encoder's stride, half as
    those of a wide or tall image in a square (0.4375 of the side for 16:9).
    """
    if rng.random() >= augment.band:
        return size_hw
    wide = rng.random() < 0.5
    side = size_hw[1] if wide else size_hw[0]
    narrow = rng.random() < 0.5
    band = (
        int(rng.integers(1, 32)) if narrow else int(rng.uniform(0.05, augment.largest_band) * side)
    )
    return (size_hw[0], side - band) if wide else (side - band, size_hw[1])


def crop(
    rng: np.random.Generator,
    image: Image,
    labels: Labels,
    size_hw: tuple[int, int],
    augment: AugmentConfig,
) -> tuple[Image, Labels]:
    """Crop a random window of about the aspect of `size_hw`, maybe rotated, and scale it."""
    h, w = labels.shape
    out_h, out_w = size_hw
    largest = min(h / out_h, w / out_w)
    scale = largest * (
        1.0 if rng.random() < augment.whole_image else rng.uniform(augment.min_crop, 1)
    )
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    crop_h, crop_w = min(out_h * scale * stretch, h), min(out_w * scale / stretch, w)
    top, left = rng.uniform(0, h - crop_h), rng.uniform(0, w - crop_w)
    corners = np.array([[left, top], [left + crop_w, top], [left, top + crop_h]], np.float32)
    if rng.random() < augment.rotate:
        angle = np.deg2rad(rng.uniform(-augment.rotate_degrees, augment.rotate_degrees))
        center = corners[0] + (crop_w / 2, crop_h / 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = ((corners - center) @ turn.T + center).astype(np.float32)
    target = np.array([[0, 0], [out_w, 0], [0, out_h]], np.float32)
    if rng.random() < 0.5:
        target[:, 0] = out_w - target[:, 0]
    matrix = cv2.getAffineTransform(corners - 0.5, target - 0.5)
    shrinking = scale > 1.2
    pixels = cv2.warpAffine(
        image,
        matrix,
        (out_w, out_h),
        flags=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    ids = cv2.warpAffine(
        labels.astype(np.float32),
        matrix,
        (out_w, out_h),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(pixels, np.uint8), np.asarray(ids, np.int32)


def photometric(rng: np.random.Generator, image: Image, augment: AugmentConfig) -> Image:
    """Vary brightness, contrast, saturation, gamma, color cast, blur, noise."""
    x: npt.NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
    gray = x.mean(-1, keepdims=True)
    saturation = 0.0 if rng.random() < augment.gray else rng.uniform(0.6, 1.4)
    x = gray + (x - gray) * saturation
    x = x * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    mean = x.mean()
    x = (x - mean) * rng.uniform(0.7, 1.3) + mean * rng.uniform(0.7, 1.3)
    x = np.asarray(np.clip(x, 0, 1) ** np.exp(rng.uniform(-0.35, 0.35)), np.float32)
    if rng.random() < augment.blur:
        x = blur(rng, x)
    if rng.random() < augment.noise:
        noise = rng.normal(0, rng.uniform(0.01, 0.06), x.shape)
        x = np.asarray(x + noise, np.float32)
    return np.asarray(np.clip(x, 0, 1) * 255 + 0.5, np.uint8)


def blur(rng: np.random.Generator, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Blur as by defocus or by a short straight motion."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.5, 1.8))).astype(np.float32)
    length = int(rng.integers(3, 12))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    offset = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    middle = (length - 1) / 2
    start, end = middle - offset, middle + offset
    cv2.line(kernel, tuple(np.rint(start).astype(int)), tuple(np.rint(end).astype(int)), 1.0)
    return cv2.filter2D(x, -1, kernel / kernel.sum()).astype(np.float32)
