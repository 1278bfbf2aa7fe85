"""What a detector has said of a track: its class by votes, the last score, hits and misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sightings:
    """The detections that were matched with one track.

    score: of the last one, 0..1; None before the first. hits: runs of the detector that found it.
    misses: runs in a row that did not. votes: sums of scores by label.
    """

    score: float | None = None
    hits: int = 0
    misses: int = 0
    votes: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The class with the most votes, the first among equals; "" before the first detection."""
        return max(self.votes, key=lambda name: self.votes[name], default="")

    def seen(self, label: str, score: float) -> Sightings:
        """After another detection."""
        votes = {**self.votes, label: self.votes.get(label, 0.0) + score}
        return Sightings(score, self.hits + 1, 0, votes)

    def missed(self) -> Sightings:
        """After a run of the detector that did not find it."""
        return Sightings(self.score, self.hits, self.misses + 1, self.votes)


UNSEEN = Sightings()
