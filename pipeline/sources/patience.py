"""How long a live stream may be silent before it counts as lost."""

from __future__ import annotations

from collections import deque
from statistics import median

_OBSERVED = 9  # intervals between packets
_TIMES_USUAL = 3.0  # the usual interval that it may be silent
_TIMES_UNKNOWN = 3.0  # the limit, for a stream of which nothing is known yet


class Patience:
    """A limit of silence, seconds, raised for streams whose packets are rarer than it allows.

    limit_s: the limit now. It outlives connections; `connected` begins one.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._least_s = limit_s
        self._intervals: deque[float] = deque(maxlen=_OBSERVED)
        self._last_s: float | None = None

    @property
    def is_for_rare(self) -> bool:
        """Whether the limit is raised because frames are rare, or may be."""
        return self.limit_s > self._least_s

    def connected(self) -> None:
        """Begin a connection: the time since the last packet of the one before is no interval."""
        self._last_s = None

    def note(self, at_s: float) -> None:
        """Note a packet and the time at which it came, seconds."""
        if self._last_s is not None:
            self._intervals.append(at_s - self._last_s)
            self.limit_s = max(self._least_s, _TIMES_USUAL * median(self._intervals))
        self._last_s = at_s

    def raise_for_first(self) -> bool:
        """Raise the limit for the first packets of an unknown stream; False if that was done."""
        if self._intervals or self.is_for_rare:
            return False
        self.limit_s *= _TIMES_UNKNOWN
        return True

    def raise_to(self, limit_s: float) -> bool:
        """Let the limit be no less than this from now on; False if it is none already."""
        is_less = self.limit_s < limit_s
        self._least_s, self.limit_s = max(self._least_s, limit_s), max(self.limit_s, limit_s)
        return is_less
