"""How sure the tracker was of every object over time, as small as a screen is wide."""

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
    """Per object its least confidence in each of at most `bins` stretches of the video's frames.

    0..100; `NOT_SEEN` where the object is hidden or lost, `NOT_TRACKED` where nothing is known.
    """
    count = min(bins, len(frames))
    strips: dict[int, list[int]] = {}
    for row in rows:
        place = min((row.index - frames.start) * count // len(frames), count - 1)
        for found in row.objects:
            strip = strips.setdefault(found.id, [NOT_TRACKED] * count)
            value = round(100 * min(found.score, 1.0)) if found.state in _SEEN else NOT_SEEN
            strip[place] = value if strip[place] == NOT_TRACKED else min(strip[place], value)
    return strips
