"""Confidence of every object over time, in bins for the timeline."""

from __future__ import annotations

from collections.abc import Iterable

from maskstream.pipeline.store import FrameObjects
from maskstream.trackers.state import TrackState

NOT_TRACKED = -1
NOT_SEEN = -2
_SEEN = (TrackState.TRACKED, TrackState.REENTERED)


def confidence_strips(
    rows: Iterable[FrameObjects], frames: range, bins: int
) -> dict[int, list[int]]:
    """The lowest confidence of each object in each of at most `bins` spans of frames.

    Values are 0..100; `NOT_SEEN` where the object is occluded or lost, `NOT_TRACKED` where it was
    not tracked.
    """
    count = min(bins, len(frames))
    strips: dict[int, list[int]] = {}
    for row in rows:
        position = min((row.index - frames.start) * count // len(frames), count - 1)
        for found in row.objects:
            strip = strips.setdefault(found.id, [NOT_TRACKED] * count)
            value = round(100 * min(found.score, 1.0)) if found.state in _SEEN else NOT_SEEN
            known = strip[position]
            strip[position] = value if known == NOT_TRACKED else min(known, value)
    return strips
