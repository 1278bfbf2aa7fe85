"""From tracks at the working resolution to a label map and object rows at the displayed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import CoveredPart, LabelMap, ObjectResult, SizeHW
from maskstream.trackers.track import BoolMap, FloatMap, Track, box_of

Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Composed:
    """Visible pixels of all objects of a frame, and their covered parts.

    labels, objects, covered: as in `FrameResult`.
    """

    labels: LabelMap
    objects: tuple[ObjectResult, ...]
    covered: tuple[CoveredPart, ...]


def compose(tracks: Sequence[Track], frame_hw: SizeHW) -> Composed:
    """Paint visible tracks into a label map uint16 [H, W]; the higher logit wins overlaps.

    Masks are upsampled only inside their box. Tracks without an id (not yet confirmed) are skipped;
    tracks without a visible mask are listed with their expected box and area 0.
    """
    labels = np.zeros(frame_hw, np.uint16)
    confirmed = sorted((t for t in tracks if t.id > 0), key=lambda t: t.id)
    painted: dict[int, _Painted] = {}
    for track in confirmed:
        seen = _upsampled(track, frame_hw) if track.visible else None
        if seen is not None:
            _paint(labels, seen, painted.values())
            painted[track.id] = seen
    objects, covered = [], []
    for track in confirmed:
        seen = painted.get(track.id)
        if seen is None:
            objects.append(_withheld(track, frame_hw))
            continue
        own = _own(labels, seen)
        objects.append(_visible(track, seen.window, own) or _withheld(track, frame_hw))
        if seen.contested:
            under = seen.inside & (own == 0)
            if under.any():
                covered.append(covered_part(track.id, seen.window, under))
    return Composed(labels, tuple(objects), tuple(covered))


def _visible(track: Track, window: Window, own: npt.NDArray[np.uint8]) -> ObjectResult | None:
    """Box and area of a track's visible pixels; None if there are none."""
    area = cv2.countNonZero(own)
    if not area:
        return None
    x, y, w, h = cv2.boundingRect(own)
    x, y = x + window[1].start, y + window[0].start
    box = (float(x), float(y), float(x + w), float(y + h))
    return _result(track, box, area)


def _withheld(track: Track, frame_hw: SizeHW) -> ObjectResult:
    """Result of a track without pixels: its expected box and area 0."""
    height, width = frame_hw
    scale = np.tile(np.array([width, height]) / track.logits.shape[::-1], 2)
    x0, y0, x1, y1 = np.clip(track.motion.box_xyxy * scale, 0, [width, height, width, height])
    box = (float(x0), float(y0), float(x1), float(y1))
    return _result(track, box, 0)


def _result(track: Track, box: tuple[float, float, float, float], area: int) -> ObjectResult:
    seen = track.sightings
    return ObjectResult(track.id, box, track.score, track.state, area, seen.label, seen.score)


def covered_part(object_id: int, window: Window, under: BoolMap) -> CoveredPart:
    """The part of an object that is covered by others, cropped to its box."""
    x, y, w, h = cv2.boundingRect(under.view(np.uint8))
    return CoveredPart(
        object_id, window[0].start + y, window[1].start + x, under[y : y + h, x : x + w]
    )


@dataclass(slots=True)
class _Painted:
    """A track's logits float32 and mask bool [h, w] in a window of the frame.

    contested: another track's window overlaps this one.
    """

    track_id: int
    window: Window
    logits: FloatMap
    inside: BoolMap
    contested: bool = False


def _upsampled(track: Track, frame_hw: SizeHW) -> _Painted | None:
    """A track's logits inside its box, upsampled; None if its mask is empty."""
    box = box_of(track.mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box.astype(int)
    height, width = frame_hw
    rows, columns = track.logits.shape
    y0, y1, top, bottom = _aligned(y0, y1, rows, height)
    x0, x1, left, right = _aligned(x0, x1, columns, width)
    size = (right - left, bottom - top)
    logits = cv2.resize(track.logits[y0:y1, x0:x1], size, interpolation=cv2.INTER_LINEAR)
    window = (slice(top, bottom), slice(left, right))
    return _Painted(track.id, window, np.asarray(logits, np.float32), logits > 0)


def _paint(labels: LabelMap, seen: _Painted, before: Iterable[_Painted]) -> None:
    """Label a track's pixels, except where an earlier track's logit is at least as high."""
    wins = seen.inside
    for other in before:
        shared = _shared(seen.window, other.window)
        if shared is not None:
            wins = wins if seen.contested else wins.copy()
            seen.contested = other.contested = True
            here, there = _within(shared, seen.window), _within(shared, other.window)
            wins[here] &= seen.logits[here] > other.logits[there]
    np.copyto(labels[seen.window], seen.track_id, where=wins, casting="unsafe")


def _own(labels: LabelMap, seen: _Painted) -> npt.NDArray[np.uint8]:
    """Nonzero at a track's pixels in the label map, uint8 [h, w] of its window."""
    if not seen.contested:
        return seen.inside.view(np.uint8)
    return np.asarray(cv2.inRange(labels[seen.window], seen.track_id, seen.track_id), np.uint8)


def _shared(one: Window, other: Window) -> Window | None:
    """Intersection of two windows of the frame; None if they do not overlap."""
    rows = slice(max(one[0].start, other[0].start), min(one[0].stop, other[0].stop))
    columns = slice(max(one[1].start, other[1].start), min(one[1].stop, other[1].stop))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _within(part: Window, window: Window) -> Window:
    """Slices of a part of the frame relative to the window that contains it."""
    (rows, columns), (top, left) = part, (window[0].start, window[1].start)
    return (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )


def _aligned(first: int, end: int, cells: int, pixels: int) -> tuple[int, int, int, int]:
    """Enlarge a range of cells by one on each side, up to the next common cell and pixel edge.

    Returns the range in cells and in pixels; resizing only this range gives the same values as
    resizing the whole.
    """
    step = cells // math.gcd(cells, pixels)
    first = max(0, first - 1) // step * step
    end = min(cells, -(-(end + 1) // step) * step)
    return first, end, first * pixels // cells, end * pixels // cells
