"""Renders cut-outs that move over a background, with masks of their visible parts.

Motion is subpixel and edges are antialiased: every layer is warped with its alpha and composited
over those before it. A pixel belongs to the layer that is visible in more than half of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.lab.evaluation.video.sprites import Sprite
from maskstream.pipeline.types import RgbImage, SizeHW

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a sprite is: center and long side in pixels of the world, rotation in degrees.

    bend: amplitude of its deformation as a share of its size. phase: of the bend, radians.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0
    bend: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """The camera: world pixel at the center of the frame, and magnification."""

    x: float
    y: float
    zoom: float = 1.0


@dataclass(frozen=True, slots=True)
class Actor:
    """A moving sprite. label: its object id, or 0 for an occluder that is not annotated.

    pose: by the time in frames; None while it is absent.
    """

    sprite: Sprite
    label: int
    pose: Callable[[float], Pose | None]


@dataclass(frozen=True, slots=True)
class Shot:
    """A sequence of frames without a cut. actors: back to front. background: the whole world."""

    frames: range
    background: RgbImage
    view: Callable[[float], View]
    actors: tuple[Actor, ...]


@dataclass(frozen=True, slots=True)
class Lens:
    """Exposure, noise and motion blur of the camera.

    exposure: factor on the brightness. noise: standard deviation in gray levels. shutter: share of
    the frame interval that it is open; samples: instants in it that are averaged.
    """

    exposure: float = 1.0
    noise: float = 1.5
    shutter: float = 0.0
    samples: int = 1


def render(
    shot: Shot, size_hw: SizeHW, lens: Lens, rng: np.random.Generator
) -> tuple[list[RgbImage], list[npt.NDArray[np.uint8]]]:
    """Frames uint8 [H, W, 3] and label maps uint8 [H, W] of a shot."""
    images, masks = [], []
    labels = np.array([0] + [actor.label for actor in shot.actors], np.uint8)
    ground = np.asarray(shot.background / np.float32(255), np.float32)
    for frame in shot.frames:
        times = frame + lens.shutter * np.arange(lens.samples) / max(1, lens.samples)
        exposed = [_expose(shot, ground, size_hw, float(time)) for time in times]
        light = np.mean([light for light, _ in exposed], 0)
        seen = np.mean([seen for _, seen in exposed], 0)
        masks.append(np.where(seen.max(0) > 0.5, labels[seen.argmax(0)], 0).astype(np.uint8))
        noise = lens.noise * rng.standard_normal(light.shape, np.float32)
        levels = 255 * lens.exposure * light + noise
        images.append(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return images, masks


def _expose(
    shot: Shot, ground: npt.NDArray[np.float32], size_hw: SizeHW, time: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """One instant: light [H, W, 3] and visible share of the background and of each actor."""
    height, width = size_hw
    view = shot.view(time)
    camera = np.array(
        [
            [view.zoom, 0, width / 2 - view.zoom * view.x],
            [0, view.zoom, height / 2 - view.zoom * view.y],
        ]
    )
    light = _warp(ground, camera, size_hw, cv2.BORDER_REFLECT)
    seen = np.zeros((1 + len(shot.actors), height, width), np.float32)
    seen[0] = 1
    for layer, actor in enumerate(shot.actors, 1):
        pose = actor.pose(time)
        if pose is None:
            continue
        sprite = _bent(actor.sprite, pose) if pose.bend else actor.sprite
        rgba = _warp(sprite, _placed(sprite, actor.sprite, pose, camera), size_hw)
        alpha = rgba[..., 3]
        light = light * (1 - alpha[..., None]) + rgba[..., :3]
        seen *= 1 - alpha
        seen[layer] = alpha
    return light, seen


def _placed(sprite: Sprite, original: Sprite, pose: Pose, camera: Matrix) -> Matrix:
    """Affine map from sprite pixels to the frame; `size` is that of the unbent sprite."""
    rows, columns = sprite.shape[:2]
    scale = pose.size / max(original.shape[:2])
    turn = np.deg2rad(pose.angle)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array([pose.x, pose.y]) - linear @ ((columns - 1) / 2, (rows - 1) / 2)
    world = np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])
    return np.asarray(camera @ world, np.float64)


def _bent(sprite: Sprite, pose: Pose) -> Sprite:
    """A sprite deformed by sine waves along rows and columns, padded so that nothing is cut off."""
    reach = max(sprite.shape[:2])
    margin = int(np.ceil(pose.bend * reach)) + 1
    padded = np.pad(sprite, ((margin, margin), (margin, margin), (0, 0)))
    y, x = np.indices(padded.shape[:2], np.float32)
    wave = 2 * np.pi / reach
    sway = pose.bend * reach
    from_x = x + sway * np.sin(wave * y + pose.phase)
    from_y = y + 0.6 * sway * np.sin(wave * x + 1.3 * pose.phase)
    return np.asarray(
        cv2.remap(padded, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_LINEAR),
        np.float32,
    )


def _warp(
    image: npt.NDArray[np.float32],
    matrix: Matrix,
    size_hw: SizeHW,
    border: int = cv2.BORDER_CONSTANT,
) -> npt.NDArray[np.float32]:
    """Warp an image; if it shrinks, it is blurred first to avoid aliasing."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.float32)
    size = (size_hw[1], size_hw[0])
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(warped, np.float32)
