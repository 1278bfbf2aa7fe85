"""Arrivals of packets, given to their frames in presentation order."""

from __future__ import annotations

import struct
from bisect import bisect_right, insort
from collections import deque
from dataclasses import replace
from typing import Any

from av.packet import Packet

from maskstream.pipeline.types import Arrival

_MAX_PENDING = 256  # packets whose frames are not decoded yet
_REFERENCE_TIME = struct.Struct("@qi")  # FFmpeg's AVProducerReferenceTime: microseconds, flags


class PresentationArrivals:
    """Gives each frame the arrival of a packet, in presentation order.

    With B-frames, packets come in decoding order, so a frame's own packet may have come after that
    of a later frame. The k-th frame gets the k-th arrival: that is never before its capture, and
    never goes back. The capture time that the sender states is the frame's own.

    skipped: packets decoded without their non-reference frames, which gave no frame.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._pts: list[int] = []  # sorted
        self._arrivals: deque[Arrival] = deque()
        self._ntp_s: dict[int, float] = {}
        self._skipping: set[int] = set()
        self._shown_pts: int | None = None
        self._last: Arrival | None = None

    def add(self, pts: int | None, arrival: Arrival, *, skipping: bool = False) -> None:
        """Note a packet given to the decoder. skipping: which skips non-reference frames."""
        self._last = self._last or arrival
        if pts is None:
            self._clear()
            self._last = arrival
            return
        if self._shown_pts is not None and pts <= self._shown_pts:
            self._clear()  # the stream's clock jumped back
        insort(self._pts, pts)
        self._arrivals.append(arrival)
        if arrival.ntp_s is not None:
            self._ntp_s[pts] = arrival.ntp_s
        if skipping:
            self._skipping.add(pts)
        if len(self._pts) > _MAX_PENDING:
            self._take_first(1)

    def take(self, pts: int | None) -> Arrival:
        """The arrival for the next frame in presentation order."""
        assert self._last is not None  # noqa: S101 - a packet has been added
        count = 0 if pts is None else bisect_right(self._pts, pts)
        if count == 0 or self._pts[count - 1] != pts:
            return replace(self._last, ntp_s=None)
        ntp_s = self._ntp_s.get(pts)
        self._shown_pts = pts
        self._skipping.discard(pts)
        self._last = self._take_first(count)
        return replace(self._last, ntp_s=ntp_s)

    def _take_first(self, count: int) -> Arrival:
        """Take so many packets in presentation order; return the arrival of the last."""
        for pts in self._pts[:count]:
            self._ntp_s.pop(pts, None)
            self.skipped += pts in self._skipping
            self._skipping.discard(pts)
        del self._pts[:count]
        for _ in range(count - 1):
            self._arrivals.popleft()
        return self._arrivals.popleft()

    def _clear(self) -> None:
        self._pts.clear()
        self._arrivals.clear()
        self._ntp_s.clear()
        self._skipping.clear()
        self._shown_pts = None


def sender_time_s(packet: Packet[Any]) -> float | None:
    """Capture time of a packet by the sender's clock, s since 1970: of RTCP's sender reports."""
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):  # from PyAV 15 on
        return None
    stated: Any = packet.get_sidedata("prft")
    return float(_REFERENCE_TIME.unpack_from(bytes(stated))[0]) / 1e6
