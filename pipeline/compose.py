"""From tracks on the work grid to a label map and object rows at the displayed size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.types import LabelMap, ObjectResult, SizeHW
from trackers.track import FloatMap, Track, box_of

Window = tuple[slice, slice]


def compose(tracks: Sequence[Track], frame_hw: SizeHW) -> tuple[LabelMap, tuple[ObjectResult, ...]]:
    """Paint visible tracks into a label map uint16 [H, W]; where they overlap the surer wins.

    Masks are upsampled only inside their box. Tracks without an id (not yet confirmed) are left
    out; tracks whose mask is withheld are listed with the box they are expected at and area 0.
    """
    labels = np.zeros(frame_hw, np.uint16)
    strongest = np.zeros(frame_hw, np.float32)
    confirmed = [t for t in tracks if t.id > 0]
    windows = {t.id: _paint(t, labels, strongest) for t in confirmed if t.visible}
    objects = [_row(track, labels, windows.get(track.id)) for track in confirmed]
    return labels, tuple(sorted(objects, key=lambda o: o.id))


def _row(track: Track, labels: LabelMap, window: Window | None) -> ObjectResult:
    """Box and area of what a track got of the label map, or the box it is expected at."""
    area = 0
    if window is not None:
        own = cv2.inRange(labels[window], track.id, track.id)
        area = cv2.countNonZero(own)
    if area and window is not None:
        x, y, w, h = cv2.boundingRect(own)
        x, y = x + window[1].start, y + window[0].start
        box = (float(x), float(y), float(x + w), float(y + h))
    else:
        height, width = labels.shape
        scale = np.tile(np.array([width, height]) / track.logits.shape[::-1], 2)
        x0, y0, x1, y1 = np.clip(track.motion.box_xyxy * scale, 0, [width, height, width, height])
        box = (float(x0), float(y0), float(x1), float(y1))
    return ObjectResult(track.id, box, track.score, track.state, area)


def _paint(track: Track, labels: LabelMap, strongest: FloatMap) -> Window | None:
    """Upsample a track's logits inside its box and take the pixels where they are strongest.

    Gives the rows and columns that were looked at; None if the mask is empty.
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
    return window


def _aligned(first: int, end: int, cells: int, pixels: int) -> tuple[int, int, int, int]:
    """Enlarge a range of cells by one on each side and on to where cells and pixels meet.

    Gives the range in cells and in pixels, so that it can be resized by itself as it would be
    within the whole.
    """
    step = cells // math.gcd(cells, pixels)
    first = max(0, first - 1) // step * step
    end = min(cells, -(-(end + 1) // step) * step)
    return first, end, first * pixels // cells, end * pixels // cells
