"""What the cameras of one process share: the keyframe engine and the governor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.live.governor import Governor, budget_steps
from maskstream.pipeline.live.keyframe_engine import KeyframeEngine

Observe = Callable[[float, int, float], None]
"""Callback with a result's latency, the frames its camera has dropped, and the time, seconds."""


class SharedWork:
    """The engine and the governor of one camera, or of several with one configuration.

    governor: judges the results of all cameras together.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.engine = KeyframeEngine()
        self.governor = Governor(budget_steps(config), config.live.latency_ms / 1000)
        self._lock = threading.Lock()  # for observations, which come from the cameras' threads
        self._dropped: list[int] = []  # by camera

    def observer(self) -> Observe:
        """What one more camera tells its results to."""
        with self._lock:
            self._dropped.append(0)
            camera = len(self._dropped) - 1

        def observe(latency_s: float, dropped: int, now_s: float) -> None:
            with self._lock:
                self._dropped[camera] = dropped
                self.governor.observe(latency_s, sum(self._dropped), now_s)

        return observe

    def close(self) -> None:
        """End the engine's thread."""
        self.engine.close()
