"""Draw masks, boxes and ids of a result over its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import FrameResult, LabelMap, ObjectResult, RgbImage, SizeHW
from maskstream.trackers.state import TrackState

Rgb = tuple[int, int, int]

_MASKED = {TrackState.TRACKED, TrackState.REENTERED}  # drawn with mask and solid box
_GUESSED = {TrackState.OCCLUDED}  # drawn with a dashed box only

_FONT = cv2.FONT_HERSHEY_SIMPLEX


_LIGHTNESS = (0.52, 0.60, 0.68, 0.76, 0.84, 0.92)  # of colors, OKLCH
_CHROMA = (0.08, 0.12, 0.16, 0.20, 0.24)
_HUES = 48
_PALETTE = 254
_FIRST_HUE = 32  # of _HUES: of the first object


def object_color(object_id: int) -> Rgb:
    """Color of an object, sRGB: each as different as can be from those before it (OKLab)."""
    return _palette()[(object_id - 1) % _PALETTE]


@lru_cache(maxsize=1)
def _palette() -> tuple[Rgb, ...]:
    """Colors by farthest-point sampling of those that a screen can show."""
    hues = 2 * math.pi * np.arange(_HUES) / _HUES
    lightness, chroma, hue = np.meshgrid(_LIGHTNESS, _CHROMA, hues, indexing="ij")
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1).reshape(-1, 3)
    linear = _linear_rgb(lab)
    shown = ((linear >= 0) & (linear <= 1)).all(1)
    lab, linear = lab[shown], linear[shown]
    first = np.array([0.68, 0.16 * math.cos(hues[_FIRST_HUE]), 0.16 * math.sin(hues[_FIRST_HUE])])
    chosen = [int(np.linalg.norm(lab - first, axis=1).argmin())]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    while len(chosen) < _PALETTE:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    )
    return tuple((int(r), int(g), int(b)) for r, g, b in np.rint(255 * encoded[chosen]))


def _linear_rgb(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """OKLab [N, 3] to linear sRGB, https://bottosson.github.io/posts/oklab/."""
    cones = lab @ np.array(
        [
            [1.0, 1.0, 1.0],
            [0.3963377774, -0.1055613458, -0.0894841775],
            [0.2158037573, -0.0638541728, -1.2914855480],
        ]
    )
    return np.asarray(
        cones**3
        @ np.array(
            [
                [4.0767416621, -1.2684380046, -0.0041960863],
                [-3.3077115913, 2.6097574011, -0.7034186147],
                [0.2309699292, -0.3413193965, 1.7076147010],
            ]
        ),
        np.float64,
    )


def draw(rgb: RgbImage, result: FrameResult, *, alpha: float = 0.45) -> RgbImage:
    """Draw the objects of `result` over a copy of `rgb`, uint8 [H, W, 3] of the labels' size.

    Visible objects get a mask of opacity `alpha` with an outline, a box, id, class and score;
    occluded ones a dashed box where they are expected; others are not drawn.
    """
    masked = [found.id for found in result.objects if found.state in _MASKED]
    image = draw_masks(rgb, result.labels, masked, alpha)
    thickness = _line_width(image)
    for found in result.objects:
        color = object_color(found.id)
        if found.state in _MASKED and found.area:
            x0, y0, x1, y1 = _corners(found)
            cv2.rectangle(image, (x0, y0), (x1, y1), color, thickness)
            draw_tag(image, (x0, y0), f"{_name(found)}  {found.score:.2f}", color)
        elif found.state in _GUESSED:
            _draw_dashes(image, _corners(found), color, thickness)
            draw_tag(image, _corners(found)[:2], f"{_name(found)} ?", color)
    return image


def _name(found: ObjectResult) -> str:
    return f"#{found.id} {found.label}".rstrip()


def scaled(result: FrameResult, size_hw: SizeHW) -> FrameResult:
    """Scale a result to an image of `size_hw`: labels by nearest neighbor, boxes exactly."""
    height, width = size_hw
    y_scale, x_scale = height / result.labels.shape[0], width / result.labels.shape[1]
    resized = cv2.resize(result.labels, (width, height), interpolation=cv2.INTER_NEAREST)
    labels = np.asarray(resized, np.uint16)
    objects = []
    for found in result.objects:
        x0, y0, x1, y1 = found.box_xyxy
        box = (x0 * x_scale, y0 * y_scale, x1 * x_scale, y1 * y_scale)
        objects.append(replace(found, box_xyxy=box, area=int((labels == found.id).sum())))
    return replace(result, labels=labels, objects=tuple(objects))


def draw_masks(
    rgb: RgbImage, labels: LabelMap, masked: Sequence[int], alpha: float = 0.45
) -> RgbImage:
    """Draw the masks of some ids of a label map over a copy of `rgb` of its size, with outlines."""
    palette = np.zeros((max([int(labels.max()), *masked]) + 1, 4), np.uint8)
    for object_id in masked:
        palette[object_id] = *object_color(object_id), 255
    rgba = palette.view(np.uint32).take(labels).view(np.uint8).reshape(*labels.shape, 4)
    colors, shown = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), cv2.extractChannel(rgba, 3)

    width = 2 * _line_width(rgb) + 1
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (width, width))
    edge = cv2.compare(cv2.erode(labels, cross), cv2.dilate(labels, cross), cv2.CMP_NE)
    image = rgb.copy()
    cv2.copyTo(cv2.addWeighted(rgb, 1 - alpha, colors, alpha, 0), shown, image)
    cv2.copyTo(colors, cv2.bitwise_and(edge, edge, mask=shown), image)
    return image


def _line_width(image: RgbImage) -> int:
    return max(1, round(int(min(image.shape[:2])) / 480))


def _corners(found: ObjectResult) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = found.box_xyxy
    return round(x0), round(y0), round(x1) - 1, round(y1) - 1


def _draw_dashes(
    image: RgbImage, corners: tuple[int, int, int, int], color: Rgb, thickness: int
) -> None:
    x0, y0, x1, y1 = corners
    dash = 5 * thickness
    for x in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            cv2.line(image, (x, y), (min(x + dash, x1), y), color, thickness)
    for y in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            cv2.line(image, (x, y), (x, min(y + dash, y1)), color, thickness)


def draw_tag(image: RgbImage, corner: tuple[int, int], text: str, background: Rgb) -> None:
    """Write `text` on a colored plate above `corner`, moved inside the image."""
    text_height = max(9, round(min(image.shape[:2]) / 48))
    scale = cv2.getFontScaleFromHeight(_FONT, text_height, 1)
    thickness = max(1, text_height // 12)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    plate_w, plate_h = width + 6, height + baseline + 3
    x = max(0, min(corner[0], image.shape[1] - plate_w))
    y = max(0, min(corner[1] - plate_h, image.shape[0] - plate_h))
    cv2.rectangle(image, (x, y), (x + plate_w, y + plate_h), background, cv2.FILLED)
    red, green, blue = background
    ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else (255, 255, 255)
    at = (x + 3, y + height + 3)
    cv2.putText(image, text, at, _FONT, scale, ink, thickness, cv2.LINE_AA)
