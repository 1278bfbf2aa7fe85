"""Slots for jobs: few run at a time, the others wait in line."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskstream.pipeline.errors import ServerFullError


class Ticket:
    """The place of one job in the line."""


class JobSlots:
    """Slots of a server. running: jobs at a time; waiting: jobs in line at most."""

    def __init__(self, running: int = 1, waiting: int = 16) -> None:
        self._running = running
        self._waiting = waiting
        self._free = running
        self._line: deque[Ticket] = deque()
        self._changed = threading.Condition()

    def enter(self) -> Ticket:
        """Take a place at the end of the line. Raises `ServerFullError` if it is full."""
        with self._changed:
            if len(self._line) - self._free >= self._waiting:
                raise ServerFullError(
                    f"The line of jobs is full ({self._running} of this server run, "
                    f"{self._waiting} wait); try again in a while."
                )
            ticket = Ticket()
            self._line.append(ticket)
            return ticket

    def before(self, ticket: Ticket) -> int:
        """Number of jobs in line before this one."""
        with self._changed:
            return self._line.index(ticket) if ticket in self._line else 0

    @contextmanager
    def slot(self, ticket: Ticket, stopped: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a slot and hold it; gives False, without a slot, if `stopped` says so first."""
        with self._changed:
            self._changed.wait_for(
                lambda: stopped() or (self._free > 0 and self._line[0] is ticket)
            )
            self._line.remove(ticket)
            granted = not stopped()
            self._free -= granted
            self._changed.notify_all()
        try:
            yield granted
        finally:
            with self._changed:
                self._free += granted
                self._changed.notify_all()

    def notice(self) -> None:
        """Make waiting jobs look whether they were stopped."""
        with self._changed:
            self._changed.notify_all()
