"""The driver of a batch: hands out tasks, tries failed ones again, and reports what ended.

Memory does not grow with the number of tasks: they are read as they are handed out, and at most
`_WAITING_MAX` wait for another try.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from maskstream.pipeline.batch.tasks import Executor, Failure, Outcome, State, Task

TRIES = 3
_WAITING_MAX = 1000
_POLL_S = 0.5
_DELAYS_S = {
    Failure.TRANSIENT: 2.0,
    Failure.LOST: 1.0,
    Failure.MEMORY: 5.0,
    Failure.BUSY: 35.0,  # two of them outlast a lease that nobody renews (`LOCK_STALE_S`)
}
"""Seconds before the second try by failure; doubled before each further one. Others are final."""


@dataclass(slots=True)
class Totals:
    """Counts of a batch so far. total: of all tasks, None until it is known. run: frames."""

    total: int | None = None
    done: int = 0
    skipped: int = 0
    failed: int = 0
    retried: int = 0
    running: int = 0
    waiting: int = 0
    frames: int = 0

    @property
    def ended(self) -> int:
        """Tasks that will not be tried again."""
        return self.done + self.skipped + self.failed


class Listener:
    """Hears what happens in a batch: progress, events, the report. Overrides what it needs."""

    def started(self, task: Task, tries: int) -> None:
        """A task begins; tries: from 1."""

    def retried(self, task: Task, outcome: Outcome, tries: int, delay_s: float) -> None:
        """A task failed and is tried again after `delay_s`."""

    def ended(self, task: Task, outcome: Outcome, tries: int) -> None:
        """A task ended for good."""

    def tick(self, totals: Totals) -> None:
        """Called after every step, about twice a second if nothing happens."""


@dataclass(slots=True)
class Driver:
    """Runs the tasks of a batch on an executor.

    tries: of a task in all. together: tasks in parallel at most, reduced when memory runs out; None
    for as many as the executor has room for. monotonic: clock in seconds.
    """

    executor: Executor
    listeners: Sequence[Listener] = ()
    tries: int = TRIES
    together: int | None = None
    monotonic: Callable[[], float] = time.monotonic
    totals: Totals = field(default_factory=Totals)
    _draining: bool = False
    _read_all: bool = False
    _waiting: list[tuple[float, int, int, Task]] = field(default_factory=list)
    _running: dict[int, int] = field(default_factory=dict)  # tries by task number

    def drain(self) -> None:
        """Begin no more tasks; `run` returns when the running ones have ended. Signal-safe."""
        self._draining = True

    @property
    def drained(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def run(self, tasks: Iterator[Task]) -> Totals:
        """Run all tasks. Raises what `tasks` raises, after the running ones have ended."""
        problem: Exception | None = None
        while True:
            try:
                self._begin_tasks(tasks)
            except Exception as error:
                problem = error
                self.drain()
            self.totals.running, self.totals.waiting = len(self._running), len(self._waiting)
            for listener in self.listeners:
                listener.tick(self.totals)
            if not self._running and (self._draining or (self._read_all and not self._waiting)):
                break
            for task, outcome in self.executor.wait(self._pause_s()):
                self._end(task, outcome, self._running.pop(task.number))
        if problem is not None:
            raise problem
        return self.totals

    def _begin_tasks(self, tasks: Iterator[Task]) -> None:
        while not self._draining and self._room() > 0:
            found = self._next(tasks)
            if found is None:
                return
            task, tries = found
            if task.problem:
                self._end(task, Outcome.failed(Failure.FINAL, task.problem), tries)
                continue
            for listener in self.listeners:
                listener.started(task, tries)
            self._running[task.number] = tries
            self.executor.submit(task)

    def _room(self) -> int:
        free = self.executor.free()
        return free if self.together is None else min(free, self.together - len(self._running))

    def _next(self, tasks: Iterator[Task]) -> tuple[Task, int] | None:
        """The next task and which try it is; None if there is none now."""
        if self._waiting and self._waiting[0][0] <= self.monotonic():
            _, _, tries, task = heapq.heappop(self._waiting)
            return task, tries
        if len(self._waiting) >= _WAITING_MAX:
            return None
        new = next(tasks, None)
        if new is None:
            self._read_all = True
            return None
        return new, 1

    def _pause_s(self) -> float:
        """How long to wait for outcomes: until the next try is due, at most `_POLL_S`."""
        due = self._waiting[0][0] - self.monotonic() if self._waiting else _POLL_S
        return min(_POLL_S, max(0.01, due))

    def _end(self, task: Task, outcome: Outcome, tries: int) -> None:
        if outcome.failure is Failure.MEMORY:
            self.together = max(1, len(self._running))  # one fewer than when it ran out
        self.totals.frames += outcome.run
        delay_s = _DELAYS_S.get(outcome.failure) if outcome.failure is not None else None
        if delay_s is not None and tries < self.tries and not self._draining:
            delay_s *= 2 ** (tries - 1)
            due = self.monotonic() + delay_s
            heapq.heappush(self._waiting, (due, task.number, tries + 1, task))
            self.totals.retried += 1
            for listener in self.listeners:
                listener.retried(task, outcome, tries, delay_s)
            return
        if outcome.state is State.DONE:
            self.totals.done += 1
        elif outcome.state is State.SKIPPED:
            self.totals.skipped += 1
        else:
            self.totals.failed += 1
        for listener in self.listeners:
            listener.ended(task, outcome, tries)
