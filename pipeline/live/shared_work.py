"""What the cameras of one process share: the keyframe engine and the governor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.live.governor import Governor, GovernorState, budget_steps
from maskstream.pipeline.live.keyframe_engine import KeyframeEngine
from maskstream.pipeline.tracking.keyframes import KeyframeBudget


class SharedGovernor:
    """One governor that judges the results of all cameras together; thread-safe."""

    def __init__(self, steps: Sequence[KeyframeBudget], deadline_s: float) -> None:
        self._governor = Governor(steps, deadline_s)
        self._lock = threading.Lock()
        self._dropped: list[int] = []  # by camera

    def for_camera(self) -> CameraGovernor:
        """What one more camera sees of it."""
        with self._lock:
            self._dropped.append(0)
            return CameraGovernor(self, len(self._dropped) - 1)

    @property
    def state(self) -> GovernorState:
        """The current decision."""
        with self._lock:
            return self._governor.state

    @property
    def history(self) -> Sequence[str]:
        """The reasons of the last steps."""
        with self._lock:
            return tuple(self._governor.history)

    def observe(self, camera: int, latency_s: float, dropped: int, now_s: float) -> None:
        """Add a result's latency. dropped: frames of this camera, since the start of its run."""
        with self._lock:
            self._dropped[camera] = dropped
            self._governor.observe(latency_s, sum(self._dropped), now_s)


@dataclass(frozen=True, slots=True)
class CameraGovernor:
    """The shared governor as one camera sees it."""

    shared: SharedGovernor
    camera: int

    @property
    def state(self) -> GovernorState:
        """The current decision, which is that of all cameras."""
        return self.shared.state

    @property
    def history(self) -> Sequence[str]:
        """The reasons of the last steps."""
        return self.shared.history

    def observe(self, latency_s: float, dropped: int, now_s: float) -> None:
        """Add a result's latency. dropped: frames dropped since the start of the run."""
        self.shared.observe(self.camera, latency_s, dropped, now_s)


class SharedWork:
    """The engine and the governor of one camera, or of several with one configuration."""

    def __init__(self, config: PipelineConfig) -> None:
        self.engine = KeyframeEngine()
        self.governor = SharedGovernor(budget_steps(config), config.live.latency_ms / 1000)

    def close(self) -> None:
        """End the engine's thread."""
        self.engine.close()
