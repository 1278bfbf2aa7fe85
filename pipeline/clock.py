"""Clock of live runs, which tests replace."""

from __future__ import annotations

import time
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Time and waiting."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary instant; never decreases."""
        ...

    def unix(self) -> float:
        """Seconds since 1970: the capture clock."""
        ...

    def wait(self, event: Event, timeout_s: float) -> bool:
        """Wait until `event` is set; False on timeout."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary instant."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def wait(self, event: Event, timeout_s: float) -> bool:
        """Wait until `event` is set; False on timeout."""
        return event.wait(timeout_s)


SYSTEM_CLOCK = SystemClock()
