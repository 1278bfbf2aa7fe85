"""What a person should look at: the frames and objects of a run that are doubtful, worst first.

Everything is judged by what a store's tables say of each object on each frame: confidence, state,
area, box. Frames pass by once; what is held grows with the objects that are alive, not with time.
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
from maskstream.trackers.state import TrackState

if TYPE_CHECKING:
    from maskstream.pipeline.store import MaskStore

MOST_DOUBTS = 100
"""Doubts that are kept of a run, however long it is."""

_SAME_TROUBLE = 5  # frames without a doubt that do not end one
_RATE = 0.05  # share of the newest frame in what is usual for an object
_LOW_SCORE = 0.65
_SCORE_DROP = 0.25  # below the usual one
_USUAL_SCORE_MAX = 0.9  # a mask that a person gave has 1, which no later frame can keep
_JUMP = 0.4  # of the logarithm of the area; of the centre's velocity, in sides a frame
_UNUSUAL = 5  # times the usual change
_SHORT_GAP = 5  # frames: out of view for so few is flicker
_SHORT_LIFE = 10  # frames
_SWAP_IOU = 0.3
_VISIBLE = (TrackState.TRACKED, TrackState.REENTERED)

Box = tuple[float, float, float, float]


class Reason(StrEnum):
    """Why somebody should look."""

    LOW = "low confidence"
    DROP = "confidence dropped"
    GONE = "out of view"
    EMPTY = "no pixels left"
    FOUND = "found again"
    AREA = "area jumped"
    MOVED = "position jumped"
    FLICKER = "flickers"
    SWAP = "boxes swapped"
    SHORT = "seen briefly"


class FrameRow(Protocol):
    """What is known of a frame without its pixels: `FrameResult` and `FrameObjects` are such."""

    @property
    def index(self) -> int:
        """The source's frame number."""

    @property
    def pts(self) -> int | None:
        """Presentation timestamp in the source's time base."""

    @property
    def objects(self) -> tuple[ObjectResult, ...]:
        """Every object that lives."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One trouble of one object: successive frames on which something is wrong with it.

    frame, pts: the worst of them, and its timestamp. first, last: the source's frame numbers.
    reason, detail: what is wrong on the worst frame. also: what else is, on others of them.
    severity: 0..1, roughly the chance that the mask is wrong there.
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
        """As JSON values."""
        return asdict(self) | {"reason": str(self.reason), "also": [str(r) for r in self.also]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Doubt:
        """From JSON values. Raises `KeyError`, `TypeError`, `ValueError`."""
        also = tuple(Reason(reason) for reason in values["also"])
        return cls(**{**values, "reason": Reason(values["reason"]), "also": also})


@dataclass(frozen=True, slots=True)
class _Sign:
    """Something wrong with an object on a frame."""

    reason: Reason
    severity: float
    detail: str = ""


@dataclass(slots=True)
class _Trouble:
    """Signs of one object on successive frames; gaps: short ones so far."""

    first: int
    last: int = 0
    last_row: int = 0
    frame: int = 0
    pts: int | None = None
    worst: _Sign = _Sign(Reason.LOW, -1.0)
    reasons: list[Reason] = field(default_factory=list)
    gaps: int = 0

    def add(self, row: int, frame: FrameRow, sign: _Sign) -> None:
        self.last, self.last_row = frame.index, row
        if sign.reason not in self.reasons:
            self.reasons.append(sign.reason)
        if sign.severity > self.worst.severity:
            self.worst, self.frame, self.pts = sign, frame.index, frame.pts

    def doubt(self, object_id: int) -> Doubt:
        worst = self.worst
        return Doubt(
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
class _Past:
    """What an object was like so far.

    seen, seen_row: its last frame with pixels. step: its last shift, pixels. usual_*: running means
    of its confidence, of the changes of its area (logarithm) and of its velocity (in sides).
    """

    row: int = 0
    seen: ObjectResult | None = None
    seen_row: int = 0
    frames_seen: int = 0
    visible: bool = True
    step: tuple[float, float] | None = None
    usual_score: float = 0.0
    usual_growth: float = 0.0
    usual_swerve: float = 0.0
    trouble: _Trouble | None = None

    def signs(self, row: int, now: ObjectResult) -> Iterator[_Sign]:
        """What is wrong with the object on the next frame; takes the frame in."""
        self.row = row
        self.visible = now.state in _VISIBLE
        if not self.visible:
            yield _Sign(Reason.GONE, 0.4, now.state.name.lower())
            return
        if now.area == 0:
            yield _Sign(Reason.EMPTY, 0.9)
            return
        gap = row - self.seen_row - 1
        if self.trouble is not None and self.seen is not None and 0 < gap <= _SHORT_GAP:
            self.trouble.gaps += 1
            gaps = self.trouble.gaps
            yield _Sign(Reason.FLICKER, min(0.8, 0.4 + 0.1 * gaps), f"short gaps: {gaps}")
        elif now.state == TrackState.REENTERED:
            yield _Sign(Reason.FOUND, 0.45, f"after {gap} frames: is it the same one?")
        yield from self._of_score(now.score)
        if self.seen is not None and gap == 0:
            yield from self._of_change(self.seen, now)
        else:
            self.step = None
        self.seen, self.seen_row = now, row
        self.frames_seen += 1

    def _of_score(self, given: float) -> Iterator[_Sign]:
        score = float(np.float32(given))  # as a store keeps it
        usual = min(self.usual_score, _USUAL_SCORE_MAX)
        if score < _LOW_SCORE:
            yield _Sign(Reason.LOW, min(1.0, 1.5 - 2 * score), f"{score:.2f}")
        if score < usual - _SCORE_DROP:
            detail = f"{score:.2f}, usually {usual:.2f}"
            yield _Sign(Reason.DROP, usual - score, detail)
        self.usual_score = _mean(self.usual_score, score, self.frames_seen)

    def _of_change(self, before: ObjectResult, now: ObjectResult) -> Iterator[_Sign]:
        growth = math.log(now.area / before.area)
        if abs(growth) > max(_JUMP, _UNUSUAL * self.usual_growth):
            factor = f"{math.exp(growth):.2g} times the frame before's"
            yield _Sign(Reason.AREA, min(0.8, 0.3 + 0.4 * abs(growth)), factor)
        self.usual_growth = _mean(self.usual_growth, abs(growth), self.frames_seen)
        side = math.sqrt(max(now.area, before.area))
        (x, y), (old_x, old_y) = _centre(now.box_xyxy), _centre(before.box_xyxy)
        step = (x - old_x, y - old_y)
        if self.step is not None:
            swerve = math.dist(step, self.step) / side
            if swerve > max(_JUMP, _UNUSUAL * self.usual_swerve):
                detail = f"by {math.hypot(*step):.0f} pixels"
                yield _Sign(Reason.MOVED, min(0.7, 0.2 + 0.5 * swerve), detail)
            self.usual_swerve = _mean(self.usual_swerve, swerve, self.frames_seen)
        self.step = step


class Reviewer:
    """Takes a run's frames in order and tells what is doubtful, at most `most` doubts."""

    def __init__(self, most: int = MOST_DOUBTS) -> None:
        self._most = most
        self._row = -1
        self._alive: dict[int, _Past] = {}
        self._kept: list[tuple[tuple[float, ...], Doubt]] = []  # a heap, the least severe on top

    def add(self, frame: FrameRow) -> None:
        """Take the next frame."""
        self._row += 1
        swapped = dict(self._swaps(frame.objects))
        for now in frame.objects:
            past = self._alive.setdefault(now.id, _Past())
            signs = list(past.signs(self._row, now))
            if now.id in swapped:
                signs.append(_Sign(Reason.SWAP, 0.95, f"with object {swapped[now.id]}"))
            if signs:
                self._note(now.id, past, frame, signs)
        for object_id in [i for i, past in self._alive.items() if past.row < self._row]:
            self._end(object_id, self._alive.pop(object_id))

    def doubts(self) -> list[Doubt]:
        """What is doubtful so far, the most severe first."""
        going_on = [
            past.trouble.doubt(object_id)
            for object_id, past in self._alive.items()
            if past.trouble is not None
        ]
        found = [*(doubt for _, doubt in self._kept), *going_on]
        return sorted(found, key=_weight, reverse=True)[: self._most]

    def _swaps(self, objects: Sequence[ObjectResult]) -> Iterator[tuple[int, int]]:
        """Ids of objects that have each other's box of the frame before."""
        moved: list[tuple[int, Box, Box]] = []
        for now in objects:
            past = self._alive.get(now.id)
            before = None if past is None or past.seen_row < self._row - 1 else past.seen
            if before is not None and now.area and _iou(before.box_xyxy, now.box_xyxy) < _SWAP_IOU:
                moved.append((now.id, before.box_xyxy, now.box_xyxy))
        for (a, a_before, a_now), (b, b_before, b_now) in combinations(moved, 2):
            if min(_iou(a_now, b_before), _iou(b_now, a_before)) > _SWAP_IOU:
                yield a, b
                yield b, a

    def _note(self, object_id: int, past: _Past, frame: FrameRow, signs: Iterable[_Sign]) -> None:
        trouble = past.trouble
        if trouble is not None and self._row - trouble.last_row > _SAME_TROUBLE:
            self._keep(trouble.doubt(object_id))
            trouble = None
        if trouble is None:
            trouble = past.trouble = _Trouble(frame.index)
        for sign in signs:
            trouble.add(self._row, frame, sign)

    def _end(self, object_id: int, past: _Past) -> None:
        """The object was given up or removed."""
        trouble = past.trouble
        if trouble is None:
            return
        if not past.visible and past.frames_seen < _SHORT_LIFE:
            sign = _Sign(Reason.SHORT, 0.5, f"on {past.frames_seen} frames, then given up")
            if sign.severity > trouble.worst.severity:
                trouble.worst = sign
            trouble.reasons.append(Reason.SHORT)
        self._keep(trouble.doubt(object_id))

    def _keep(self, doubt: Doubt) -> None:
        heapq.heappush(self._kept, (_weight(doubt), doubt))
        if len(self._kept) > self._most:
            heapq.heappop(self._kept)


def review(frames: Iterable[FrameRow], most: int = MOST_DOUBTS) -> list[Doubt]:
    """What is doubtful in a run, the most severe first, at most `most`."""
    reviewer = Reviewer(most)
    for frame in frames:
        reviewer.add(frame)
    return reviewer.doubts()


def review_of(store: MaskStore) -> list[Doubt]:
    """What is doubtful in a store, the most severe first.

    The list that its writer left, or one made now from the tables where there is none (the run has
    not ended). Raises `StoreError`, `StoreCorruptError`.
    """
    kept = store.review
    if kept is None:
        return review(store.frame_objects())
    try:
        return [Doubt.from_json(values) for values in kept]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreCorruptError(
            f"The review list of the mask store {store.path} is damaged; maskstream fsck --repair "
            "takes it out, and it is made anew."
        ) from error


def _weight(doubt: Doubt) -> tuple[float, ...]:
    """By severity, then length, then the earlier one; never the same for two."""
    return doubt.severity, doubt.last - doubt.first, -doubt.first, -doubt.object


def _mean(usual: float, value: float, count: int) -> float:
    """The running mean with one more value; of the first few the plain one."""
    return usual + (value - usual) * max(_RATE, 1 / (count + 1))


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b))
    return both / (areas - both)
