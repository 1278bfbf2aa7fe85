"""States of a track."""

from __future__ import annotations

from enum import IntEnum


class TrackState(IntEnum):
    """State of one object on one frame; values are stored and keep their meaning."""

    TENTATIVE = 0  # not yet confirmed: not shown
    TRACKED = 1
    OCCLUDED = 2
    LOST = 3
    REENTERED = 4
    REMOVED = 5
