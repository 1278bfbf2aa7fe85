"""Wall time by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimes:
    """Wall time spent in each stage, seconds; each is in the hands of one thread at a time.

    clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._begun: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begun = self._begun[name] = self._clock()
        try:
            yield
        finally:
            self._begun.pop(name, None)
            self.seconds[name] += self._clock() - begun

    def running(self) -> dict[str, float]:
        """How long each stage has been at work that is at work now, seconds; for any thread."""
        now = self._clock()
        return {name: now - begun for name, begun in self._begun.copy().items()}
