"""The governor: keeps live results within their deadline by making keyframes cheaper.

It lowers the keyframe budget one step at a time, and raises it again when there is time to spare.
The steps in order: fewer keyframes, a smaller encoder input, fewer seeding prompts, fewer tracks
updated on a keyframe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.tracking.keyframes import KeyframeBudget

_WINDOW_S = 1.0  # over which latency is measured
_MIN_RESULTS = 8  # in a window, to decide at all
_SPARE = 0.6  # share of the deadline below which there is time to spare
_MAX_DROPPED = 0.2  # share of frames; with more dropped, the machine is overloaded at any latency
_CALM_S, _CALM_MAX_S = 5.0, 80.0  # with time to spare before a step back; doubled after a relapse
_RELAPSE_S = 10.0  # a step so soon after a step back counts as a relapse
_FEW_TRACKS = (4, 2, 1)
_REASONS_KEPT = 20
WITHIN = "within the deadline"


@dataclass(frozen=True, slots=True)
class GovernorState:
    """The governor's current decision.

    level: steps taken, from 0. levels: number of steps there are. budget: what keyframes may cost.
    reason: why the last step was taken, a sentence.
    """

    level: int
    levels: int
    budget: KeyframeBudget
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        budget = self.budget
        return {
            "level": self.level,
            "levels": self.levels,
            "interval": budget.interval,
            "input_share": budget.input_share,
            "prompts": budget.prompts,
            "refreshed": budget.tracks_per_keyframe
            if budget.tracks_per_keyframe < MAX_OBJECT_ID
            else None,
            "reason": self.reason,
        }


def budget_steps(config: PipelineConfig) -> list[KeyframeBudget]:
    """Budgets from the configured one to the cheapest; each step lowers one limit."""
    live = config.live
    steps = [
        KeyframeBudget(
            config.keyframes.interval, 1.0, config.seeding.prompts_per_keyframe, MAX_OBJECT_ID
        )
    ]
    while steps[-1].interval < live.interval_max:
        interval = min(live.interval_max, -(-steps[-1].interval * 3 // 2))
        steps.append(replace(steps[-1], interval=interval))
    for share in live.input_shares[1:]:
        steps.append(replace(steps[-1], input_share=share))
    if config.seeding.enabled:
        for prompts in (steps[-1].prompts // 2, 0):
            if prompts < steps[-1].prompts:
                steps.append(replace(steps[-1], prompts=prompts))
    for tracks_per_keyframe in _FEW_TRACKS:
        steps.append(replace(steps[-1], tracks_per_keyframe=tracks_per_keyframe))
    return steps


class Governor:
    """Chooses the keyframe budget once a second, from the latencies and times it is given.

    deadline_s: latency that 95 % of the results must keep, seconds.
    """

    def __init__(self, steps: Sequence[KeyframeBudget], deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.history: deque[str] = deque(maxlen=_REASONS_KEPT)
        self._steps = steps
        self._level = 0
        self._reason = WITHIN
        self._overloaded = False
        self._latencies: list[float] = []
        self._window_start_s: float | None = None
        self._dropped_before = 0
        self._calm_since: float | None = None
        self._calm_s = _CALM_S
        self._stepped_back_at: float | None = None

    @property
    def state(self) -> GovernorState:
        """The current decision."""
        return GovernorState(
            self._level, len(self._steps) - 1, self._steps[self._level], self._reason
        )

    @property
    def spares_decoding(self) -> bool:
        """Whether non-reference frames need not be decoded: there is nothing more to save."""
        return self._overloaded and self._level == len(self._steps) - 1

    def state_at(self, behind_s: float) -> GovernorState:
        """The current decision, with what is true of the results now as its reason.

        behind_s: time between the arrivals of the newest frame and of the newest result.
        """
        if behind_s <= self.deadline_s:
            return self.state
        return replace(self.state, reason=f"results are {behind_s:.1f} s behind")

    def observe(self, latency_s: float, dropped: int, now_s: float) -> None:
        """Add a result's latency. dropped: frames dropped since the start of the run."""
        if self._window_start_s is None:
            self._start_window(dropped, now_s)
        self._latencies.append(latency_s)
        over = now_s - (self._window_start_s or 0.0) >= _WINDOW_S
        if over and len(self._latencies) >= _MIN_RESULTS:
            self._decide(dropped - self._dropped_before, now_s)
            self._start_window(dropped, now_s)
        elif over:
            self._note_few()

    def _start_window(self, dropped: int, now_s: float) -> None:
        self._latencies.clear()
        self._window_start_s, self._dropped_before = now_s, dropped

    def _note_few(self) -> None:
        """Tell the truth of results that are too few to decide by."""
        latest_s = self._latencies[-1]
        few = f"{1000 * latest_s:.0f} ms of {1000 * self.deadline_s:.0f}, few results"
        if latest_s > self.deadline_s and not self._level:
            self._reason = few
        elif latest_s <= self.deadline_s and self._reason.endswith("few results"):
            self._reason = WITHIN

    def _decide(self, dropped: int, now_s: float) -> None:
        p95_s = float(np.percentile(self._latencies, 95))
        lost = dropped / (dropped + len(self._latencies))
        late = p95_s > self.deadline_s
        self._overloaded = late or lost > _MAX_DROPPED
        if not late and self._reason.endswith("few results"):
            self._reason = WITHIN
        if self._overloaded:
            self._calm_since = None
            latency = f"p95 {1000 * p95_s:.0f} ms of {1000 * self.deadline_s:.0f}"
            self._step(+1, latency if late else f"{100 * lost:.0f} % of the frames dropped", now_s)
        elif p95_s > _SPARE * self.deadline_s or lost > _MAX_DROPPED / 2:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now_s
        elif now_s - self._calm_since >= self._calm_s:
            self._calm_since = now_s
            self._step(-1, f"p95 {1000 * p95_s:.0f} ms, time to spare", now_s)

    def _step(self, direction: int, cause: str, now_s: float) -> None:
        before = self._level
        self._level = min(max(before + direction, 0), len(self._steps) - 1)
        if self._level == before:
            self._reason = f"{cause}; nothing more to save" if direction > 0 else self._reason
            return
        if direction < 0:
            self._stepped_back_at = now_s
        elif self._stepped_back_at is not None:
            relapsed = now_s - self._stepped_back_at < _RELAPSE_S
            self._calm_s = min(2 * self._calm_s, _CALM_MAX_S) if relapsed else _CALM_S
            self._stepped_back_at = None
        self._reason = f"{cause}: {_difference(self._steps[before], self._steps[self._level])}"
        self.history.append(self._reason)


def _difference(before: KeyframeBudget, after: KeyframeBudget) -> str:
    limits = {
        "a keyframe every {} frames": (before.interval, after.interval),
        "encoder input x {}": (before.input_share, after.input_share),
        "{} seeding prompts a keyframe": (before.prompts, after.prompts),
        "{} tracks updated a keyframe": (before.tracks_per_keyframe, after.tracks_per_keyframe),
    }
    changed = [
        text.format("all" if new == MAX_OBJECT_ID else new)
        for text, (old, new) in limits.items()
        if old != new
    ]
    return ", ".join(changed)
