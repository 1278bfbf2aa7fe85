"""Pace of inputs that come faster than in real time: HLS, and recordings over HTTP."""

from __future__ import annotations

from fractions import Fraction
from threading import Event
from typing import Any

from av.container import InputContainer
from av.packet import Packet

from maskstream.pipeline.clock import Clock

_IN_SEGMENTS = frozenset({"hls", "dash"})  # formats, by FFmpeg's names
_LATE_MAX_S = 1.0  # later packets are not made up for
_STEP_MAX_S = 10.0  # between packets; more is a jump of the stream's clock


def is_paced(container: InputContainer, target: str) -> bool:
    """Whether packets of an opened input come in bursts, and not when they were captured."""
    if _IN_SEGMENTS & set(container.format.name.split(",")):
        return True
    return target.lower().startswith("http") and bool(container.duration)


class Pace:
    """Lets packets pass when they are due by their timestamps, until `stopped` is set."""

    def __init__(self, time_base: Fraction, clock: Clock, stopped: Event) -> None:
        self._time_base = time_base
        self._clock = clock
        self._stopped = stopped
        self._start_s = 0.0
        self._last_s: float | None = None

    def wait(self, packet: Packet[Any]) -> bool:
        """Wait until a packet is due; False if that was ended."""
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is None:
            return True
        at_s, now_s = float(ticks * self._time_base), self._clock.monotonic()
        jumped = self._last_s is None or not -1 < at_s - self._last_s <= _STEP_MAX_S
        if jumped or now_s > self._start_s + at_s + _LATE_MAX_S:
            self._start_s = now_s - at_s
        self._last_s = at_s
        due_s = self._start_s + at_s - now_s
        return due_s <= 0 or not self._clock.wait(self._stopped, due_s)
