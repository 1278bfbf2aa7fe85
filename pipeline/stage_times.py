"""Wall time by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimes:
    """Wall time spent in each stage, seconds; a stage runs in one thread at a time.

    clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._started: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = self._started[name] = self._clock()
        try:
            yield
        finally:
            self._started.pop(name, None)
            self.seconds[name] += self._clock() - started

    def running(self) -> dict[str, float]:
        """Time since each stage in progress began, seconds; thread-safe."""
        now = self._clock()
        return {name: now - started for name, started in self._started.copy().items()}
