"""Results of `eval video`: scores by sequence, their means, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from maskstream.pipeline.lab.evaluation.video.identities import IdentityScores
from maskstream.pipeline.lab.evaluation.video.measures import Statistics
from maskstream.pipeline.lab.evaluation.video.predictions import Effort, ObjectScores, Visibility

_DIGITS = 4
SOON_FRAMES = 25
"""Annotated frames within which an object should be found: about one second of video."""
BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """J and F (means over objects, or over sequences) and the cost of the run.

    switches: times an object's identity changed. visibility: false shows and blanks.
    """

    j: Statistics
    f: Statistics
    switches: int
    visibility: Visibility
    effort: Effort

    @property
    def jf(self) -> float:
        """J&F: the mean of both means."""
        return (self.j.mean + self.f.mean) / 2

    def to_json(self) -> dict[str, float]:
        """J, F, J&F, their recall and decay, switches, visibility, fps and peak memory."""
        values = {"J": self.j.mean, "F": self.f.mean, "J&F": self.jf}
        for name, measure in (("J", self.j), ("F", self.f)):
            values |= {f"{name}_recall": measure.recall, f"{name}_decay": measure.decay}
        rounded = {name: round(v, _DIGITS) for name, v in values.items()}
        counts = {"id_switches": self.switches} | asdict(self.visibility)
        return rounded | counts | effort_json(self.effort)


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """One sequence. objects: the pipeline's scores by object id. baselines: by name."""

    name: str
    ours: Row
    objects: Mapping[int, ObjectScores]
    baselines: Mapping[str, Row]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        objects = {
            str(i): {"J": round(s.j.mean, _DIGITS), "F": round(s.f.mean, _DIGITS)}
            for i, s in self.objects.items()
        }
        baselines = {name: row.to_json() for name, row in self.baselines.items()}
        return {
            "name": self.name,
            **self.ours.to_json(),
            "objects": objects,
            "baselines": baselines,
        }


@dataclass(frozen=True, slots=True)
class VideoReport:
    """All sequences. skipped: names of videos without masks, or without an object to score."""

    prompt: str
    sequences: tuple[SequenceReport, ...]
    skipped: tuple[str, ...]

    @property
    def overall(self) -> Row:
        """Mean of the pipeline over the sequences."""
        return mean_row([s.ours for s in self.sequences])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over the sequences of the pipeline's mean J&F."""
        scores = np.array([s.ours.jf for s in self.sequences])
        drawn = np.random.default_rng(0).choice(scores, (BOOTSTRAP_SAMPLES, len(scores)))
        low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
        return float(low), float(high)

    @property
    def baselines(self) -> dict[str, Row]:
        """Mean of each baseline over the sequences."""
        names = self.sequences[0].baselines
        return {name: mean_row([s.baselines[name] for s in self.sequences]) for name in names}

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "overall": self.overall.to_json(),
            "J&F_interval": [round(bound, _DIGITS) for bound in self.interval],
            "baselines": {name: row.to_json() for name, row in self.baselines.items()},
            "sequences": [sequence.to_json() for sequence in self.sequences],
            "skipped": list(self.skipped),
            "prompt": self.prompt,
        }


@dataclass(frozen=True, slots=True)
class SeededSequence:
    """One sequence of a seeded run."""

    name: str
    scores: IdentityScores
    effort: Effort

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"name": self.name, **_identities_json(self.scores), **effort_json(self.effort)}


@dataclass(frozen=True, slots=True)
class SeededReport:
    """All sequences of seeded runs. skipped: names of videos without masks."""

    sequences: tuple[SeededSequence, ...]
    skipped: tuple[str, ...]

    @property
    def overall(self) -> SeededSequence:
        """Means over the sequences; switches are added."""
        scores = [s.scores for s in self.sequences]
        return SeededSequence(
            "overall",
            IdentityScores(
                float(np.mean([s.hota for s in scores])),
                float(np.mean([s.detection for s in scores])),
                float(np.mean([s.association for s in scores])),
                sum(s.switches for s in scores),
                tuple(delay for s in scores for delay in s.delays),
            ),
            total_effort([s.effort for s in self.sequences]),
        )

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        overall = self.overall.to_json()
        del overall["name"]
        return {
            "overall": overall,
            "sequences": [sequence.to_json() for sequence in self.sequences],
            "skipped": list(self.skipped),
        }


def sequence_row(scores: Mapping[int, ObjectScores], switches: int, effort: Effort) -> Row:
    """Means over the objects of a sequence."""
    return Row(
        mean_statistics([s.j for s in scores.values()]),
        mean_statistics([s.f for s in scores.values()]),
        switches,
        sum((s.visibility for s in scores.values()), Visibility()),
        effort,
    )


def mean_row(rows: Sequence[Row]) -> Row:
    """Means over rows; counts, frames and seconds are added, the peak is the maximum."""
    return Row(
        mean_statistics([row.j for row in rows]),
        mean_statistics([row.f for row in rows]),
        sum(row.switches for row in rows),
        sum((row.visibility for row in rows), Visibility()),
        total_effort([row.effort for row in rows]),
    )


def mean_statistics(values: Sequence[Statistics]) -> Statistics:
    """Mean of each statistic."""
    return Statistics(
        float(np.mean([v.mean for v in values])),
        float(np.mean([v.recall for v in values])),
        float(np.mean([v.decay for v in values])),
    )


def total_effort(efforts: Sequence[Effort]) -> Effort:
    """Total cost of some runs."""
    return Effort(
        sum(e.frames for e in efforts),
        sum(e.seconds for e in efforts),
        max(e.peak_mb for e in efforts),
    )


def effort_json(effort: Effort) -> dict[str, float]:
    """Rate and peak memory."""
    return {"fps": round(effort.fps, 2), "peak_memory_mb": round(effort.peak_mb, 1)}


def _identities_json(scores: IdentityScores) -> dict[str, float]:
    return {
        "HOTA": round(scores.hota, _DIGITS),
        "DetA": round(scores.detection, _DIGITS),
        "AssA": round(scores.association, _DIGITS),
        "id_switches": scores.switches,
        "found": round(scores.found, _DIGITS),
        f"found_within_{SOON_FRAMES}_frames": round(scores.found_within(SOON_FRAMES), _DIGITS),
    }
