"""Label maps that a method predicted on annotated frames, with their cost and their scores."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from maskstream.pipeline.lab.evaluation.video.clips import SequenceTask
from maskstream.pipeline.lab.evaluation.video.identities import (
    IdentityScores,
    overlap,
    score_identities,
)
from maskstream.pipeline.lab.evaluation.video.measures import (
    BoolMap,
    Statistics,
    boundary_accuracy,
    region_similarity,
    statistics,
)
from maskstream.pipeline.types import LabelMap

_FAST = 1  # zlib's level; label maps are mostly runs


class KeptLabels:
    """Label maps by frame, compressed in memory, to be scored after the run."""

    def __init__(self, wanted: Collection[int]) -> None:
        self._wanted = wanted
        self._packed: dict[int, bytes] = {}
        self._shape = (0, 0)

    def put(self, frame: int, labels: LabelMap) -> None:
        """Keep a frame's label map if it is wanted."""
        if frame in self._wanted:
            self._shape = labels.shape[0], labels.shape[1]
            self._packed[frame] = zlib.compress(labels.astype(np.uint16).tobytes(), _FAST)

    def __contains__(self, frame: int) -> bool:
        return frame in self._packed

    def at(self, frame: int) -> LabelMap:
        """The kept label map of a frame."""
        flat = np.frombuffer(zlib.decompress(self._packed[frame]), np.uint16)
        return flat.reshape(self._shape)


@dataclass(frozen=True, slots=True)
class Effort:
    """Cost of a run: frames, seconds (with decoding, without model loading), peak memory in MiB."""

    frames: int
    seconds: float
    peak_mb: float

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Answers:
    """Label maps of the annotated frames and the cost of the run."""

    labels: KeptLabels
    effort: Effort


@dataclass(frozen=True, slots=True)
class Visibility:
    """Counts of scored frames of objects.

    absent: the object is not there; false_shows: of these, how often a mask was predicted. visible:
    it is there; blanks: of these, how often no mask was predicted.
    """

    absent: int = 0
    false_shows: int = 0
    visible: int = 0
    blanks: int = 0

    @classmethod
    def of(cls, answer: BoolMap, truth: BoolMap) -> Visibility:
        """Of an object on one frame; masks bool [H, W]."""
        there, shown = bool(truth.any()), bool(answer.any())
        return cls(not there, shown and not there, there, there and not shown)

    def __add__(self, other: Visibility) -> Visibility:
        return Visibility(
            self.absent + other.absent,
            self.false_shows + other.false_shows,
            self.visible + other.visible,
            self.blanks + other.blanks,
        )


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """J, F and visibility of one object over its scored frames."""

    j: Statistics
    f: Statistics
    visibility: Visibility


def score_objects(task: SequenceTask, labels: KeptLabels) -> dict[int, ObjectScores]:
    """J, F and visibility of every scored object, by id."""
    j: dict[int, list[float]] = {i: [] for i in task.objects}
    f: dict[int, list[float]] = {i: [] for i in task.objects}
    seen = dict.fromkeys(task.objects, Visibility())
    for frame, ids in task.scored.items():
        truth, valid = task.truth(frame)
        answer = np.where(valid, labels.at(frame), 0)
        for i in ids:
            j[i].append(region_similarity(answer == i, truth == i))
            f[i].append(boundary_accuracy(answer == i, truth == i))
            seen[i] += Visibility.of(answer == i, truth == i)
    return {i: ObjectScores(statistics(j[i]), statistics(f[i]), seen[i]) for i in task.objects}


def score_identities_of(
    task: SequenceTask, labels: KeptLabels, frames: Iterable[int]
) -> IdentityScores:
    """HOTA and identity switches over some annotated frames, without void pixels."""
    overlaps = []
    for frame in frames:
        truth, valid = task.truth(frame)
        answer = np.where(valid, labels.at(frame), 0).astype(np.uint16)
        overlaps.append(overlap(answer, truth))
    return score_identities(overlaps)
