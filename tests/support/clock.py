"""A clock that stands still until somebody waits by it, or moves it."""

from threading import Event


class FakeClock:
    """Starts at 1000 s, at a capture time of 5000 s; `waits` are the waits that were asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def unix(self) -> float:
        return self.now + 4000.0

    def wait(self, event: Event, timeout_s: float) -> bool:
        if event.is_set():
            return True
        self.waits.append(timeout_s)
        self.now += timeout_s
        return event.is_set()
