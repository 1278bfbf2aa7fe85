"""From tracks on the work grid to a label map and object rows at the displayed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import HiddenPart, LabelMap, ObjectResult, SizeHW
from trackers.track import BoolMap, FloatMap, Track, box_of

Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Composed:
    """What is visible of all objects of a frame, and what lies under others.

    labels, objects, hidden: as in `FrameResult`.
    """

    labels: LabelMap
    objects: tuple[ObjectResult, ...]
    hidden: tuple[HiddenPart, ...]


def compose(tracks: Sequence[Track], frame_hw: SizeHW) -> Composed:
    """Paint visible tracks into a label map uint16 [H, W]; where they overlap the surer wins.

    Masks are upsampled only inside their box. Tracks without an id (not yet confirmed) are left
    out; tracks whose mask is withheld are listed with the box they are expected at and area 0.
    """
    labels = np.zeros(frame_hw, np.uint16)
    strongest = np.zeros(frame_hw, np.float32)
    confirmed = sorted((t for t in tracks if t.id > 0), key=lambda t: t.id)
    painted = {t.id: _paint(t, labels, strongest) for t in confirmed if t.visible}
    objects, hidden = [], []
    for track in confirmed:
        place = painted.get(track.id)
        if place is None:
            objects.append(_withheld(track, frame_hw))
            continue
        window, inside = place
        own = np.asarray(cv2.inRange(labels[window], track.id, track.id), np.uint8)
        objects.append(_visible(track, window, own) or _withheld(track, frame_hw))
        under = inside & (own == 0)
        if under.any():
            hidden.append(hidden_part(track.id, window, under))
    return Composed(labels, tuple(objects), tuple(hidden))


def _visible(track: Track, window: Window, own: npt.NDArray[np.uint8]) -> ObjectResult | None:
    """Box and area of what a track got of the label map; None if that is nothing."""
    area = cv2.countNonZero(own)
    if not area:
        return None
    x, y, w, h = cv2.boundingRect(own)
    x, y = x + window[1].start, y + window[0].start
    box = (float(x), float(y), float(x + w), float(y + h))
    return ObjectResult(track.id, box, track.score, track.state, area)


def _withheld(track: Track, frame_hw: SizeHW) -> ObjectResult:
    """A track that has no pixels, with the box it is expected at."""
    height, width = frame_hw
    scale = np.tile(np.array([width, height]) / track.logits.shape[::-1], 2)
    x0, y0, x1, y1 = np.clip(track.motion.box_xyxy * scale, 0, [width, height, width, height])
    box = (float(x0), float(y0), float(x1), float(y1))
    return ObjectResult(track.id, box, track.score, track.state, 0)


def hidden_part(object_id: int, window: Window, under: BoolMap) -> HiddenPart:
    """The part of an object that other labels cover, cut to its box."""
    x, y, w, h = cv2.boundingRect(under.view(np.uint8))
    return HiddenPart(
        object_id, window[0].start + y, window[1].start + x, under[y : y + h, x : x + w]
    )


def _paint(track: Track, labels: LabelMap, strongest: FloatMap) -> tuple[Window, BoolMap] | None:
    """Upsample a track's logits inside its box and take the pixels where they are strongest.

    Gives the rows and columns that were looked at and where the object is in them, on top or not;
    None if the mask is empty.
    """
    box = box_of(track.mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box.astype(int)
    height, width = labels.shape
    rows, columns = track.logits.shape
    y0, y1, top, bottom = _aligned(y0, y1, rows, height)
    x0, x1, left, right = _aligned(x0, x1, columns, width)
    window = (slice(top, bottom), slice(left, right))
    size = (right - left, bottom - top)
    logits = cv2.resize(track.logits[y0:y1, x0:x1], size, interpolation=cv2.INTER_LINEAR)
    wins = logits > strongest[window]
    labels[window][wins] = track.id
    np.maximum(strongest[window], logits, out=strongest[window])
    return window, logits > 0


def _aligned(first: int, end: int, cells: int, pixels: int) -> tuple[int, int, int, int]:
    """Enlarge a range of cells by one on each side and on to where cells and pixels meet.

    Gives the range in cells and in pixels, so that it can be resized by itself as it would be
    within the whole.
    """
    step = cells // math.gcd(cells, pixels)
    first = max(0, first - 1) // step * step
    end = min(cells, -(-(end + 1) // step) * step)
    return first, end, first * pixels // cells, end * pixels // cells
