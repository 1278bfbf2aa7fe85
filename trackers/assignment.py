"""Gated Hungarian assignment of detections to tracks."""

from __future__ import annotations

from dataclasses import dataclass

import lap
import numpy as np
import numpy.typing as npt

INFEASIBLE = 1e6


@dataclass(frozen=True, slots=True)
class Assignment:
    """Matched pairs (track, detection) and what stayed unmatched, as indices."""

    pairs: tuple[tuple[int, int], ...]
    unmatched_tracks: tuple[int, ...]
    unmatched_detections: tuple[int, ...]


def assign(cost: npt.NDArray[np.float64], cost_max: float) -> Assignment:
    """Match tracks (rows) with detections (columns) at the least total cost.

    Pairs that cost more than `cost_max` are made infeasible before solving, so that they cannot
    displace a feasible pair; they are dropped from the result (`lap.lapjv`, Jonker-Volgenant).
    """
    tracks, detections = cost.shape
    if tracks == 0 or detections == 0:
        return Assignment((), tuple(range(tracks)), tuple(range(detections)))
    gated = np.where(cost <= cost_max, cost, INFEASIBLE)
    _, column_of, _ = lap.lapjv(gated, extend_cost=True)
    pairs = tuple(
        (row, int(column))
        for row, column in enumerate(column_of)
        if column >= 0 and gated[row, column] < INFEASIBLE
    )
    rows, columns = {r for r, _ in pairs}, {c for _, c in pairs}
    return Assignment(
        pairs,
        tuple(r for r in range(tracks) if r not in rows),
        tuple(c for c in range(detections) if c not in columns),
    )


def assign_two_stage(
    cost: npt.NDArray[np.float64], cost_max: float, first: npt.NDArray[np.bool_]
) -> Assignment:
    """Assign in two stages: detections marked in `first` [detections], then the others.

    As in ByteTrack (arXiv 2110.06864), low-score detections only get the tracks that no high-score
    detection matched.
    """
    sure, unsure = np.flatnonzero(first), np.flatnonzero(~first)
    chosen = assign(cost[:, sure], cost_max)
    rows = np.array(chosen.unmatched_tracks, np.intp)
    then = assign(cost[np.ix_(rows, unsure)], cost_max)
    return Assignment(
        (
            *((row, int(sure[column])) for row, column in chosen.pairs),
            *((int(rows[row]), int(unsure[column])) for row, column in then.pairs),
        ),
        tuple(int(rows[row]) for row in then.unmatched_tracks),
        (
            *(int(sure[column]) for column in chosen.unmatched_detections),
            *(int(unsure[column]) for column in then.unmatched_detections),
        ),
    )
