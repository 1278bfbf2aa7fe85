"""Review: rank the frames and objects of a run that a person should check.

It uses only the store's tables: confidence, state, area and box of each object on each frame.
Frames are read once; memory grows with the number of live objects, not with time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maskstream.pipeline.errors import StoreCorruptError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.types import ObjectResult
from maskstream.trackers.iou import box_iou
from maskstream.trackers.state import TrackState

if TYPE_CHECKING:
    from maskstream.pipeline.store import MaskStore

MAX_REVIEW_ITEMS = 100
"""Review items kept of a run, whatever its length."""

_SAME_ISSUE_FRAMES = 5  # frames without a signal that do not end an issue
_NEWEST_WEIGHT = 0.05  # weight of the newest frame in an object's running means
_LOW_SCORE = 0.65
_SCORE_DROP = 0.25  # below the running mean
_USUAL_SCORE_MAX = 0.9  # prompted masks have 1, which no later frame reaches
_JUMP = 0.4  # of the logarithm of the area; of the center's velocity, in sides a frame
_UNUSUAL = 5  # times the mean change
_SHORT_GAP = 5  # frames; shorter gaps are flicker
_SHORT_LIFE = 10  # frames
_SWAP_IOU = 0.3
_VISIBLE = (TrackState.TRACKED, TrackState.REENTERED)

Box = tuple[float, float, float, float]


class Reason(StrEnum):
    """Why a person should check an object."""

    LOW = "low confidence"
    DROP = "confidence dropped"
    OUT_OF_VIEW = "out of view"
    EMPTY = "no pixels left"
    FOUND = "found again"
    AREA = "area jumped"
    MOVED = "position jumped"
    FLICKER = "flickers"
    SWAP = "boxes swapped"
    SHORT = "seen briefly"


class FrameRow(Protocol):
    """A frame without its pixels: `FrameResult` and `FrameObjects` have these attributes."""

    @property
    def index(self) -> int:
        """The source's frame number."""

    @property
    def pts(self) -> int | None:
        """Presentation timestamp in the source's time base."""

    @property
    def objects(self) -> tuple[ObjectResult, ...]:
        """Every object that has a track."""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A span of frames on which one object should be checked.

    frame, pts: the worst frame and its timestamp. first, last: frame indices of the span. reason,
    detail: of the worst frame. also: other reasons within the span. severity: 0..1, roughly the
    probability that the mask is wrong.
    """

    frame: int
    object: int
    reason: Reason
    severity: float
    first: int
    last: int
    pts: int | None = None
    detail: str = ""
    also: tuple[Reason, ...] = ()

    def to_json(self) -> JsonObject:
        """Convert to JSON values."""
        return asdict(self) | {"reason": str(self.reason), "also": [str(r) for r in self.also]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ReviewItem:
        """From JSON values. Raises `KeyError`, `TypeError`, `ValueError`."""
        also = tuple(Reason(reason) for reason in values["also"])
        return cls(**{**values, "reason": Reason(values["reason"]), "also": also})


@dataclass(frozen=True, slots=True)
class _Signal:
    """A reason to check one object on one frame."""

    reason: Reason
    severity: float
    detail: str = ""


@dataclass(slots=True)
class _Issue:
    """Signals of one object on successive frames; gaps: number of short gaps so far."""

    first: int
    last: int = 0
    last_row: int = 0
    frame: int = 0
    pts: int | None = None
    worst: _Signal = _Signal(Reason.LOW, -1.0)
    reasons: list[Reason] = field(default_factory=list)
    gaps: int = 0

    def add(self, row: int, frame: FrameRow, signal: _Signal) -> None:
        self.last, self.last_row = frame.index, row
        if signal.reason not in self.reasons:
            self.reasons.append(signal.reason)
        if signal.severity > self.worst.severity:
            self.worst, self.frame, self.pts = signal, frame.index, frame.pts

    def item(self, object_id: int) -> ReviewItem:
        worst = self.worst
        return ReviewItem(
            frame=self.frame,
            object=object_id,
            reason=worst.reason,
            severity=round(worst.severity, 3),
            first=self.first,
            last=self.last,
            pts=self.pts,
            detail=worst.detail,
            also=tuple(r for r in self.reasons if r != worst.reason),
        )


@dataclass(slots=True)
class _ObjectHistory:
    """Running statistics of one object.

    seen, seen_row: its last result with pixels and that frame's row. step: its last shift, pixels.
    mean_*: running means of its confidence, of the changes of its area (logarithm) and of its
    velocity (in sides of a square of its area).
    """

    row: int = 0
    seen: ObjectResult | None = None
    seen_row: int = 0
    frames_seen: int = 0
    visible: bool = True
    step: tuple[float, float] | None = None
    mean_score: float = 0.0
    mean_growth: float = 0.0
    mean_swerve: float = 0.0
    issue: _Issue | None = None

    def signals(self, row: int, now: ObjectResult) -> Iterator[_Signal]:
        """Yield the signals of the next frame and update the statistics."""
        self.row = row
        self.visible = now.state in _VISIBLE
        if not self.visible:
            yield _Signal(Reason.OUT_OF_VIEW, 0.4, now.state.name.lower())
            return
        if now.area == 0:
            yield _Signal(Reason.EMPTY, 0.9)
            return
        gap = row - self.seen_row - 1
        if self.issue is not None and self.seen is not None and 0 < gap <= _SHORT_GAP:
            self.issue.gaps += 1
            gaps = self.issue.gaps
            yield _Signal(Reason.FLICKER, min(0.8, 0.4 + 0.1 * gaps), f"short gaps: {gaps}")
        elif now.state == TrackState.REENTERED:
            yield _Signal(Reason.FOUND, 0.45, f"after {gap} frames: is it the same one?")
        yield from self._of_score(now.score)
        if self.seen is not None and gap == 0:
            yield from self._of_change(self.seen, now)
        else:
            self.step = None
        self.seen, self.seen_row = now, row
        self.frames_seen += 1

    def _of_score(self, given: float) -> Iterator[_Signal]:
        score = float(np.float32(given))  # the store's precision
        usual = min(self.mean_score, _USUAL_SCORE_MAX)
        if score < _LOW_SCORE:
            yield _Signal(Reason.LOW, min(1.0, 1.5 - 2 * score), f"{score:.2f}")
        if score < usual - _SCORE_DROP:
            detail = f"{score:.2f}, usually {usual:.2f}"
            yield _Signal(Reason.DROP, usual - score, detail)
        self.mean_score = _mean(self.mean_score, score, self.frames_seen)

    def _of_change(self, before: ObjectResult, now: ObjectResult) -> Iterator[_Signal]:
        growth = math.log(now.area / before.area)
        if abs(growth) > max(_JUMP, _UNUSUAL * self.mean_growth):
            factor = f"{math.exp(growth):.2g} times the frame before's"
            yield _Signal(Reason.AREA, min(0.8, 0.3 + 0.4 * abs(growth)), factor)
        self.mean_growth = _mean(self.mean_growth, abs(growth), self.frames_seen)
        side = math.sqrt(max(now.area, before.area))
        (x, y), (old_x, old_y) = _center(now.box_xyxy), _center(before.box_xyxy)
        step = (x - old_x, y - old_y)
        if self.step is not None:
            swerve = math.dist(step, self.step) / side
            if swerve > max(_JUMP, _UNUSUAL * self.mean_swerve):
                detail = f"by {math.hypot(*step):.0f} pixels"
                yield _Signal(Reason.MOVED, min(0.7, 0.2 + 0.5 * swerve), detail)
            self.mean_swerve = _mean(self.mean_swerve, swerve, self.frames_seen)
        self.step = step


class Reviewer:
    """Collects review items from a run's frames in order, at most `max_items`."""

    def __init__(self, max_items: int = MAX_REVIEW_ITEMS) -> None:
        self._max_items = max_items
        self._row = -1
        self._alive: dict[int, _ObjectHistory] = {}
        self._kept: list[
            tuple[tuple[float, ...], ReviewItem]
        ] = []  # a heap, the least severe on top

    def add(self, frame: FrameRow) -> None:
        """Add the next frame."""
        self._row += 1
        swapped = dict(self._swaps(frame.objects))
        for now in frame.objects:
            history = self._alive.setdefault(now.id, _ObjectHistory())
            signals = list(history.signals(self._row, now))
            if now.id in swapped:
                signals.append(_Signal(Reason.SWAP, 0.95, f"with object {swapped[now.id]}"))
            if signals:
                self._note(now.id, history, frame, signals)
        for object_id in [i for i, history in self._alive.items() if history.row < self._row]:
            self._end(object_id, self._alive.pop(object_id))

    def items(self) -> list[ReviewItem]:
        """Review items so far, the most severe first."""
        open_items = [
            history.issue.item(object_id)
            for object_id, history in self._alive.items()
            if history.issue is not None
        ]
        found = [*(item for _, item in self._kept), *open_items]
        return sorted(found, key=_weight, reverse=True)[: self._max_items]

    def _swaps(self, objects: Sequence[ObjectResult]) -> Iterator[tuple[int, int]]:
        """Pairs of ids of objects whose boxes swapped since the previous frame."""
        moved: list[tuple[int, Box, Box]] = []
        for now in objects:
            history = self._alive.get(now.id)
            before = None if history is None or history.seen_row < self._row - 1 else history.seen
            if (
                before is not None
                and now.area
                and _box_iou(before.box_xyxy, now.box_xyxy) < _SWAP_IOU
            ):
                moved.append((now.id, before.box_xyxy, now.box_xyxy))
        for (a, a_before, a_now), (b, b_before, b_now) in combinations(moved, 2):
            if min(_box_iou(a_now, b_before), _box_iou(b_now, a_before)) > _SWAP_IOU:
                yield a, b
                yield b, a

    def _note(
        self, object_id: int, history: _ObjectHistory, frame: FrameRow, signals: Iterable[_Signal]
    ) -> None:
        issue = history.issue
        if issue is not None and self._row - issue.last_row > _SAME_ISSUE_FRAMES:
            self._keep(issue.item(object_id))
            issue = None
        if issue is None:
            issue = history.issue = _Issue(frame.index)
        for signal in signals:
            issue.add(self._row, frame, signal)

    def _end(self, object_id: int, history: _ObjectHistory) -> None:
        """Close the history of an object that was removed."""
        issue = history.issue
        if issue is None:
            return
        if not history.visible and history.frames_seen < _SHORT_LIFE:
            signal = _Signal(Reason.SHORT, 0.5, f"on {history.frames_seen} frames, then given up")
            if signal.severity > issue.worst.severity:
                issue.worst = signal
            issue.reasons.append(Reason.SHORT)
        self._keep(issue.item(object_id))

    def _keep(self, item: ReviewItem) -> None:
        heapq.heappush(self._kept, (_weight(item), item))
        if len(self._kept) > self._max_items:
            heapq.heappop(self._kept)


def review(frames: Iterable[FrameRow], max_items: int = MAX_REVIEW_ITEMS) -> list[ReviewItem]:
    """Review items of a run, the most severe first, at most `max_items`."""
    reviewer = Reviewer(max_items)
    for frame in frames:
        reviewer.add(frame)
    return reviewer.items()


def review_of(store: MaskStore) -> list[ReviewItem]:
    """Review items of a store, the most severe first.

    Read from the store, or computed from its tables if it has none (the run has not ended). Raises
    `StoreError`, `StoreCorruptError`.
    """
    kept = store.review
    if kept is None:
        return review(store.frame_objects())
    try:
        return [ReviewItem.from_json(values) for values in kept]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreCorruptError(
            f"The review list of the mask store {store.path} is damaged; maskstream fsck --repair "
            "removes it, and it is computed again."
        ) from error


def _weight(item: ReviewItem) -> tuple[float, ...]:
    """Sort key: severity, then length, then the earlier one; unique."""
    return item.severity, item.last - item.first, -item.first, -item.object


def _mean(usual: float, value: float, count: int) -> float:
    """Update a running mean; a plain mean over the first few values."""
    return usual + (value - usual) * max(_NEWEST_WEIGHT, 1 / (count + 1))


def _center(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _box_iou(a: Box, b: Box) -> float:
    return float(box_iou(np.array([a], np.float64), np.array([b], np.float64))[0, 0])
