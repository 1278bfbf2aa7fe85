"""From tracks on the work grid to a label map and object rows at the displayed size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.types import LabelMap, ObjectResult, SizeHW
from trackers.track import Track, box_of


def compose(tracks: Sequence[Track], frame_hw: SizeHW) -> tuple[LabelMap, tuple[ObjectResult, ...]]:
    """Paint visible tracks into a label map uint16 [H, W]; where they overlap the surer wins.

    Masks are upsampled only inside their box. Tracks without an id (not yet confirmed) are left
    out; tracks whose mask is withheld are listed with the box they are expected at and area 0.
    """
    height, width = frame_hw
    labels = np.zeros(frame_hw, np.uint16)
    strongest = np.zeros(frame_hw, np.float32)
    confirmed = [t for t in tracks if t.id > 0]
    for track in confirmed:
        if track.visible:
            _paint(track, labels, strongest)
    objects = []
    for track in confirmed:
        own = labels == track.id if track.visible else np.zeros((0, 0), np.bool_)
        box = box_of(own) if own.any() else None
        if box is None:
            scale = np.tile(np.array([width, height]) / track.logits.shape[::-1], 2)
            box = np.clip(track.motion.box_xyxy * scale, 0, [width, height, width, height])
        x0, y0, x1, y1 = (float(v) for v in box)
        objects.append(
            ObjectResult(track.id, (x0, y0, x1, y1), track.score, track.state, int(own.sum()))
        )
    return labels, tuple(sorted(objects, key=lambda o: o.id))


def _paint(track: Track, labels: LabelMap, strongest: np.ndarray) -> None:
    """Upsample a track's logits inside its box and take the pixels where they are strongest."""
    box = box_of(track.mask)
    if box is None:
        return
    height, width = labels.shape
    rows, columns = track.logits.shape
    sx, sy = columns / width, rows / height
    x0, y0 = int((box[0] - 1) / sx), int((box[1] - 1) / sy)
    x1, y1 = int(np.ceil((box[2] + 1) / sx)), int(np.ceil((box[3] + 1) / sy))
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    matrix = np.array([[sx, 0, (x0 + 0.5) * sx - 0.5], [0, sy, (y0 + 0.5) * sy - 0.5]])
    logits = cv2.warpAffine(
        track.logits,
        matrix,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    wins = logits > strongest[y0:y1, x0:x1]
    labels[y0:y1, x0:x1][wins] = track.id
    strongest[y0:y1, x0:x1][wins] = logits[wins]
