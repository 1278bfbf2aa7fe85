"""Gaps of a live source: which pauses are gaps, and the events that tell them in a store."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from maskstream.pipeline.types import Arrival, Frame

MAX_EVENTS = 1000
"""Events of a store that are listed one by one; later gaps are summed up."""
_OBSERVED = 9  # intervals between frames
_TIMES_USUAL = 3.0  # the usual interval; a longer one is a gap
_JUMP_S = 1.0  # difference between the two clocks in the time since the previous frame

Event = Mapping[str, Any]


class GapFinder:
    """Says which intervals between frames are gaps: those much longer than the usual ones.

    gap_s: the shortest gap; that of a source with a low frame rate is longer.
    """

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._intervals: deque[float] = deque(maxlen=_OBSERVED)

    def is_gap(self, interval_s: float) -> bool:
        """Whether the time since the frame before is a gap; the first interval is none."""
        usual_s = median(self._intervals) if self._intervals else interval_s
        self._intervals.append(interval_s)
        return interval_s > max(self._gap_s, _TIMES_USUAL * usual_s)


class SourceEvents:
    """The events of a live source for its store, of which there are a bounded number.

    `{"type": "gap", "frame": first after it, "after": last before it, "seconds", "reason"}` and
    `{"type": "clock", "frame", "pts", "captured_s"}` (seconds since 1970 by the capture clock),
    which relates the timestamps to the capture clock at the start, after every gap and wherever one
    of the two jumps. After `MAX_EVENTS` of them, gaps are summed up from then on: `{"type": "gaps",
    "since": frame after the first of them, "frame": after the last, "count", "seconds"}`, which is
    written anew whenever the count has doubled, and at the end.
    """

    def __init__(self) -> None:
        self._left = MAX_EVENTS
        self._last: tuple[Frame, Arrival] | None = None
        self._since: int | None = None  # frame of the first gap that is summed up
        self._frame = self._count = self._written = 0
        self._seconds = 0.0

    def before(self, frame: Frame, arrival: Arrival) -> list[Event]:
        """The events to add before a frame."""
        events: list[Event] = []
        last, self._last = self._last, (frame, arrival)
        if last is not None and arrival.gap_s > 0:
            events.append(
                {
                    "type": "gap",
                    "frame": frame.index,
                    "after": last[0].index,
                    "seconds": round(arrival.gap_s, 3),
                    "reason": arrival.gap_reason,
                }
            )
        if last is None or events or _jumped(frame, arrival, *last):
            clock = {"type": "clock", "frame": frame.index, "pts": frame.pts}
            events.append(clock | {"captured_s": round(arrival.unix_s, 6)})
        if self._left >= len(events):
            self._left -= len(events)
            return events
        self._left = 0
        if arrival.gap_s > 0:
            self._sum_up(frame.index, arrival.gap_s)
        return self.at_end() if self._count >= 2 * self._written else []

    def at_end(self) -> list[Event]:
        """The events to add after the last frame."""
        if self._count == self._written:
            return []
        self._written = self._count
        seconds = round(self._seconds, 3)
        sums = {"since": self._since, "frame": self._frame, "count": self._count}
        return [{"type": "gaps"} | sums | {"seconds": seconds}]

    def _sum_up(self, index: int, gap_s: float) -> None:
        self._since = index if self._since is None else self._since
        self._frame = index
        self._count += 1
        self._seconds += gap_s


def _jumped(frame: Frame, arrival: Arrival, previous: Frame, previous_arrival: Arrival) -> bool:
    """Whether timestamps and capture clock disagree about the time between two frames."""
    if frame.pts_s is None or previous.pts_s is None:
        return False
    elapsed_s = arrival.unix_s - previous_arrival.unix_s
    return abs(frame.pts_s - previous.pts_s - elapsed_s) > _JUMP_S
