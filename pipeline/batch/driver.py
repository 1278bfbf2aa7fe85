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
"""Seconds before the second try by failure; doubled before each further one. Others are final.

A busy store is waited for, which is no try: the delay stays the same.
"""
_DELAY_MAX_S = 600.0
_STOPPED = "The batch was stopped while this video ran; the same words again go on with it."


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of a task. tries: its number, from 1. waited: the store was busy when it began."""

    task: Task
    tries: int = 1
    waited: bool = False


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
        """A task begins; tries: from 1. Not called again after it waited for a busy store."""

    def retried(self, task: Task, outcome: Outcome, tries: int, delay_s: float) -> None:
        """A task failed and is tried again after `delay_s`; of a busy store, called once."""

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
    _stopping: bool = False
    _read_all: bool = False
    _waiting: list[tuple[float, int, _Try]] = field(default_factory=list)
    _running: dict[int, _Try] = field(default_factory=dict)  # by task number

    def drain(self) -> None:
        """Begin no more tasks; `run` returns when the running ones have ended. Signal-safe."""
        self._draining = True

    def stop(self) -> None:
        """Let `run` return soon; running tasks fail. Signal-safe."""
        self._draining = self._stopping = True

    @property
    def drained(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

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
                self._end(self._running.pop(task.number), outcome)
            if self._stopping:
                self._abandon()
        if problem is not None:
            raise problem
        return self.totals

    def _begin_tasks(self, tasks: Iterator[Task]) -> None:
        while not self._draining and self._room() > 0:
            found = self._next(tasks)
            if found is None:
                return
            task = found.task
            if task.problem:
                self._end(found, Outcome.failed(Failure.FINAL, task.problem))
                continue
            if not found.waited:
                for listener in self.listeners:
                    listener.started(task, found.tries)
            self._running[task.number] = found
            self.executor.submit(task)

    def _room(self) -> int:
        free = self.executor.free()
        return free if self.together is None else min(free, self.together - len(self._running))

    def _next(self, tasks: Iterator[Task]) -> _Try | None:
        """The next try of a task; None if there is none now."""
        if self._waiting and self._waiting[0][0] <= self.monotonic():
            return heapq.heappop(self._waiting)[2]
        if len(self._waiting) >= _WAITING_MAX:
            return None
        new = next(tasks, None)
        if new is None:
            self._read_all = True
            return None
        return _Try(new)

    def _pause_s(self) -> float:
        """How long to wait for outcomes: until the next try is due, at most `_POLL_S`."""
        due = self._waiting[0][0] - self.monotonic() if self._waiting else _POLL_S
        return min(_POLL_S, max(0.01, due))

    def _end(self, ended: _Try, outcome: Outcome) -> None:
        if outcome.failure is Failure.MEMORY:
            self.together = max(1, len(self._running))  # one fewer than when it ran out
        self.totals.frames += outcome.run
        task, tries = ended.task, ended.tries
        busy = outcome.failure is Failure.BUSY
        delay_s = _DELAYS_S.get(outcome.failure) if outcome.failure is not None else None
        if delay_s is not None and (busy or tries < self.tries) and not self._draining:
            if not busy:
                delay_s = min(_DELAY_MAX_S, delay_s * 2 ** (tries - 1))
            again = _Try(task, tries if busy else tries + 1, waited=busy)
            heapq.heappush(self._waiting, (self.monotonic() + delay_s, task.number, again))
            if busy and ended.waited:
                return
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

    def _abandon(self) -> None:
        """Let what runs fail; the executor's `close` ends it."""
        for running in self._running.values():
            self._end(running, Outcome.failed(Failure.LOST, _STOPPED))
        self._running.clear()
