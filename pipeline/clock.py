"""The clock that live runs measure and wait by; tests give them another one."""

from __future__ import annotations

import time
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    def unix(self) -> float:
        """Seconds since 1970: the capture clock."""
        ...

    def wait(self, event: Event, timeout_s: float) -> bool:
        """Wait until `event` is set; False if the time is up before."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def wait(self, event: Event, timeout_s: float) -> bool:
        """Wait until `event` is set; False if the time is up before."""
        return event.wait(timeout_s)


SYSTEM_CLOCK = SystemClock()
