"""A store with what exports must keep: a hole, two pieces, overlaps, a gap, numbers that jump."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.store import MaskStoreWriter
from maskstream.pipeline.types import CoveredPart, FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState

SIZE = (60, 90)
NUMBERS = (10, 11, 13, 14)
INFO = SourceInfo("clips/my clip.mp4", SIZE, Fraction(1, 1000), Fraction(25))
RENAME = {"frame": 0, "type": "rename", "object": 7, "name": "tea cup"}


def whole_masks(number: int) -> dict[int, np.ndarray]:
    """Whole masks by object, bool; later ones lie over earlier ones."""
    shift = number - 10
    one, three, seven = (np.zeros(SIZE, np.uint8) for _ in range(3))
    cv2.circle(one, (25 + shift, 30), 20, 1, -1)
    cv2.circle(one, (25 + shift, 30), 9, 0, -1)
    cv2.circle(one, (60 + shift, 12), 8, 1, -1)
    cv2.rectangle(three, (38, 25), (70, 50 - shift), 1, -1)
    cv2.circle(seven, (66, 40), 12, 1, -1)
    masks = {1: one > 0, 3: three > 0}
    return masks if number == 11 else masks | {7: seven > 0}


def shown(number: int) -> np.ndarray:
    """The label map, uint16."""
    labels = np.zeros(SIZE, np.uint16)
    for object_id, mask in whole_masks(number).items():
        labels[mask] = object_id
    return labels


def write_store(path: Path, *, complete: bool = True) -> None:
    """Write those frames, and the name of object 7."""
    store = MaskStoreWriter(path, info=INFO, attributes={})
    try:
        store.add_events([RENAME])
        for number in NUMBERS:
            store.append(_result(number))
    finally:
        store.close(complete=complete)


def _result(number: int) -> FrameResult:
    masks, labels = whole_masks(number), shown(number)
    objects, covered = [], []
    for object_id, mask in masks.items():
        area = int((labels == object_id).sum())
        box = (0.0, 0.0, 1.0, 1.0)
        objects.append(ObjectResult(object_id, box, 0.75, TrackState.TRACKED, area))
        under = mask & (labels != object_id)
        if under.any():
            covered.append(CoveredPart(object_id, 0, 0, under))
    pts = 40 * number
    return FrameResult(number, pts, INFO.time_base, False, labels, tuple(objects), tuple(covered))
