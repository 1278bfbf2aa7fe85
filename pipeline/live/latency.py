"""Latency percentiles over any number of results, in constant memory."""

from __future__ import annotations

import numpy as np

_STEP_MS = 0.5
_STEPS = 120_000  # up to 60 s; longer latencies count as 60 s


class LatencyHistogram:
    """Histogram of latencies with bins of half a millisecond."""

    def __init__(self) -> None:
        self._counts = np.zeros(_STEPS, np.int64)
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def add(self, latency_s: float) -> None:
        """Count one latency, seconds."""
        self._counts[min(max(0, int(1000 * latency_s / _STEP_MS)), _STEPS - 1)] += 1
        self._total += 1

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` of the results do not exceed, ms; 0 without results."""
        if not self._total:
            return 0.0
        wanted = max(1, int(np.ceil(percent / 100 * self._total)))
        return float((np.searchsorted(np.cumsum(self._counts), wanted) + 1) * _STEP_MS)

    def to_json(self) -> dict[str, float]:
        """The percentiles p50, p95 and p99 as JSON values, ms."""
        return {f"p{percent}": self.percentile_ms(percent) for percent in (50, 95, 99)}
