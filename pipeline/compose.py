"""From tracks on the work grid to a label map and object rows at the displayed size."""

from __future__ import annotations

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
    own = np.zeros((0, 0), np.bool_) if window is None else labels[window] == track.id
    box = box_of(own) if own.any() else None
    if box is not None and window is not None:
        box += np.tile([window[1].start, window[0].start], 2)
    else:
        height, width = labels.shape
        scale = np.tile(np.array([width, height]) / track.logits.shape[::-1], 2)
        box = np.clip(track.motion.box_xyxy * scale, 0, [width, height, width, height])
    x0, y0, x1, y1 = (float(v) for v in box)
    return ObjectResult(track.id, (x0, y0, x1, y1), track.score, track.state, int(own.sum()))


def _paint(track: Track, labels: LabelMap, strongest: FloatMap) -> Window | None:
    """Upsample a track's logits inside its box and take the pixels where they are strongest.

    Gives the rows and columns that were looked at; None if the mask is empty.
    """
    box = box_of(track.mask)
    if box is None:
        return None
    height, width = labels.shape
    rows, columns = track.logits.shape
    sx, sy = columns / width, rows / height
    x0, y0 = max(0, int((box[0] - 1) / sx)), max(0, int((box[1] - 1) / sy))
    x1 = min(width, int(np.ceil((box[2] + 1) / sx)))
    y1 = min(height, int(np.ceil((box[3] + 1) / sy)))
    matrix = np.array([[sx, 0, (x0 + 0.5) * sx - 0.5], [0, sy, (y0 + 0.5) * sy - 0.5]])
    logits = cv2.warpAffine(
        track.logits,
        matrix,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    window = (slice(y0, y1), slice(x0, x1))
    wins = logits > strongest[window]
    labels[window][wins] = track.id
    strongest[window][wins] = logits[wins]
    return window
