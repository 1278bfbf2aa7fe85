"""Corrects a mask by one click: near the click only, and in the click's own direction only.

A positive click only adds to the mask and a negative one only removes from it, in the connected
region around the click where the evidence for a change outweighs the distance from the click. The
evidence is what the decoder answers to three prompts, and how much the color is that around the
click. The decoder's answer alone redraws the whole mask; `maskstream bench corrections` compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import FloatMap, boxes_of, deepest
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter
from maskstream.pipeline.types import RgbImage, SizeHW

BoolMap = npt.NDArray[np.bool_]

# Chosen on half of the cases of `maskstream bench corrections`; the results change little around
# these values.
_LOGIT_WEIGHT = 0.6  # of the decoder's mean logit ...
_LOGIT_MAX = 8.0  # ... each limited to this
_COLOR_WEIGHT = 1.2  # of the logarithm of the difference in color
_COLOR_NOISE = 4.0  # added to the standard deviation of the color around the click, 8-bit Lab
_BLUR_PX = 1.5  # of the image before colors are compared
_BIAS_REMOVE, _BIAS_ADD = 1.0, 0.2  # of the score
_BIAS_FURTHER = 0.5  # added for further clicks on a mask, which is wrong more often than others
_BIAS_ANSWER = 1.5  # added instead for masks that are answers to clicks, which are wrong most often
_REACH_MAX = 0.25  # of the reach, as a share of the square root of the mask's area
_REACH_EMPTY_PX = 20.0  # the same if the mask is empty
_CORE = 0.4  # share of the reach that a click changes whatever the evidence
_PRIOR_LOGIT, _PRIOR_EDGE_PX = 2.0, 6.0  # logits of a mask that has none; the best values measured
_PRIOR_SIDE = 256


@dataclass(frozen=True, slots=True)
class PixelClick:
    """A click on pixel (x, y) of the frame. positive: on the object, else beside it."""

    x: int
    y: int
    positive: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """A mask bool [H, W] of a frame, and a click that corrects it.

    earlier: the clicks on the same frame before it. is_answer: the mask is the decoder's answer to
    clicks or a box, or was one before it was corrected; not a tracked or painted one.
    """

    mask: BoolMap
    click: PixelClick
    earlier: Sequence[PixelClick] = ()
    is_answer: bool = False

    @property
    def bias(self) -> float:
        """Bias of the score, by how often such masks are wrong."""
        bias = _BIAS_ADD if self.click.positive else _BIAS_REMOVE
        if self.is_answer:
            return bias + _BIAS_ANSWER
        return bias + _BIAS_FURTHER if self.earlier else bias


def correct_mask(
    segmenter: Segmenter, features: Features, rgb: RgbImage, correction: Correction
) -> BoolMap:
    """Correct a mask by a click; return the new mask.

    The click's pixel is on its side of the new mask. What is nearer to an earlier click with the
    other sign does not change. A click that agrees with the mask changes nothing.

    features, rgb: the encoded frame, and its image at `geometry.valid_hw`.
    """
    mask, click = correction.mask, correction.click
    free = ~mask if click.positive else mask
    if not free[click.y, click.x]:
        return mask.copy()
    depth = _depth(free, click)
    limit = _REACH_MAX * float(np.sqrt(np.count_nonzero(mask))) if mask.any() else _REACH_EMPTY_PX
    reach = max(1.0, min(depth, limit))
    logits = _mean_logits(segmenter, features, correction, depth)
    size_hw = segmenter.geometry.valid_hw
    near = _distance(size_hw, mask.shape, click)
    score = (
        _LOGIT_WEIGHT * segmenter.geometry.to_size(logits, size_hw)
        - np.log((near + 0.5) / reach)
        - _COLOR_WEIGHT * np.log1p(_color_difference(rgb, near <= max(1.0, reach / 2)))
        + correction.bias
    )
    score = cv2.resize(score, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    region = (score > 0).astype(np.uint8)
    cv2.circle(region, (click.x, click.y), max(1, round(_CORE * reach)), 1, cv2.FILLED)
    region[~free] = 0
    for other in correction.earlier:
        if other.positive != click.positive:
            region[_nearer(mask.shape, other, click)] = 0
    region[click.y, click.x] = 1
    changed = _connected(region, click)
    return mask | changed if click.positive else mask & ~changed


def prior_logits(mask: BoolMap) -> FloatMap:
    """Convert a mask to logits that grow with the distance to its edge, long side at most 256."""
    scale = min(1.0, _PRIOR_SIDE / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    inside = cv2.distanceTransform(small, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - small, cv2.DIST_L2, 5)
    return np.asarray(_PRIOR_LOGIT * np.tanh((inside - outside) / _PRIOR_EDGE_PX), np.float32)


def _mean_logits(
    segmenter: Segmenter, features: Features, correction: Correction, depth: float
) -> FloatMap:
    """Mean logits [4h, 4w] for a change, of three prompts, or two if the model takes no masks.

    All clicks and one deep inside the mask, alone, with the mask's box, and with mask and box. If
    the model takes no more points, the first clicks are left out.
    """
    mask, click = correction.mask, correction.click
    clicks = [*correction.earlier, click]
    inside = _deep_inside(mask, click, depth)
    if inside is not None:
        clicks.append(inside)
    card = segmenter.card
    if card.points_max is not None:
        clicks = clicks[-(card.points_max - 2) :]
    corners = _box_with(mask, click) if mask.any() else np.zeros((2, 2), np.float32)
    points = np.array([(c.x + 0.5, c.y + 0.5) for c in clicks], np.float32)
    xy = np.tile(np.concatenate([corners, points]), (3, 1, 1))
    signs = [int(c.positive) for c in clicks]
    boxed, unboxed = (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, *signs), (PAD, PAD, *signs)
    rows = (boxed, boxed, unboxed) if mask.any() else (unboxed,) * 3
    labels = np.array(rows, np.float32)
    if card.mask_prompts:
        prior = np.tile(segmenter.geometry.from_size(prior_logits(mask)), (3, 1, 1, 1))
        prompts = PromptBatch(xy, labels, prior, np.array([mask.any(), 0, 0], np.float32))
    else:
        prompts = PromptBatch(xy[1:], labels[1:])
    logits = segmenter.decode(features, prompts).masks[:, 0]
    mean = np.clip(logits, -_LOGIT_MAX, _LOGIT_MAX).mean(0)
    return np.asarray(mean if click.positive else -mean, np.float32)


def _deep_inside(mask: BoolMap, click: PixelClick, depth: float) -> PixelClick | None:
    """A positive click deep in the mask, away from the click that corrects it."""
    rest = mask.astype(np.uint8)
    cv2.circle(rest, (click.x, click.y), round(depth), 0, cv2.FILLED)
    x, y, found = deepest(rest > 0)
    return PixelClick(x, y, True) if found else None


def _box_with(mask: BoolMap, click: PixelClick) -> FloatMap:
    """Corners [2, 2] (x, y) of the box of a mask, and of the click if it is positive."""
    x0, y0, x1, y1 = boxes_of(mask[None])[0]
    if click.positive:
        x0, y0 = min(x0, click.x), min(y0, click.y)
        x1, y1 = max(x1, click.x + 1), max(y1, click.y + 1)
    return np.array([[x0, y0], [x1, y1]], np.float32)


def _depth(free: BoolMap, click: PixelClick) -> float:
    """Distance of a click from the border of a region it lies in; outside the frame is outside."""
    padded = np.pad(free.view(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)
    return float(distance[click.y + 1, click.x + 1])


def _distance(size_hw: SizeHW, frame_hw: tuple[int, ...], click: PixelClick) -> FloatMap:
    """Distance from a click in pixels of the frame, [h, w] at `size_hw`."""
    rows, columns = (
        (np.arange(n, dtype=np.float32) + 0.5) * (full / n) - 0.5
        for n, full in zip(size_hw, frame_hw, strict=True)
    )
    return np.asarray(np.hypot(columns[None] - click.x, rows[:, None] - click.y), np.float32)


def _color_difference(rgb: RgbImage, around: BoolMap) -> FloatMap:
    """Difference of each pixel's color from the mean color of a region, in standard deviations."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), _BLUR_PX)
    lab = cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB).astype(np.float32)
    known = lab[around] if around.any() else lab.reshape(-1, 3)
    scaled = (lab - known.mean(0)) / (known.std(0) + _COLOR_NOISE)
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", scaled, scaled)), np.float32)


def _nearer(shape: tuple[int, ...], other: PixelClick, click: PixelClick) -> BoolMap:
    """Pixels that are nearer to the other click than to the click."""
    dx, dy = other.x - click.x, other.y - click.y
    middle = dx * (other.x + click.x) / 2 + dy * (other.y + click.y) / 2
    return np.asarray(dx * np.arange(shape[1])[None] + dy * np.arange(shape[0])[:, None] > middle)


def _connected(region: npt.NDArray[np.uint8], click: PixelClick) -> BoolMap:
    """The connected part of a region that holds the click."""
    _, labels = cv2.connectedComponents(region, connectivity=4)
    return np.asarray(labels == labels[click.y, click.x])
