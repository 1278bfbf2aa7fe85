"""Packets of a live input, stamped when they come, and skipped when decoding falls behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from av.packet import Packet

from maskstream.pipeline.clock import Clock
from maskstream.pipeline.types import Arrival

_MAX_PACKETS = 1024  # waiting to be decoded
_MAX_BYTES = 64 * 2**20
_READ_AHEAD = 4  # packets of a source that waits for its reader
_MAX_KEYFRAME_WAIT_S = 10.0  # streams with intra refresh have no video keyframes


@dataclass(frozen=True, slots=True)
class CatchUp:
    """When frames are skipped before decoding.

    late_s: age of the next packet from which non-reference frames are skipped, and whole groups
    of pictures before a video keyframe that has come. behind_s: age from which everything is left
    out up to the next video keyframe.
    """

    late_s: float = 0.15
    behind_s: float = 2.0


class Waiting(NamedTuple):
    """A packet to decode. late: non-reference frames may be skipped. after_jump: others were."""

    packet: Packet[Any]
    arrival: Arrival
    late: bool = False
    after_jump: bool = False


class PacketFeed:
    """Demuxes in a thread of its own and keeps the packets until they are decoded; iterate once.

    packets: the demuxer, which is iterated and closed in the thread. stamp: says when a
    packet came; None ends the thread. clock: for the age of packets. catch_up: how packets are left
    out; None: the demuxer waits for the decoder. skipped: packets skipped. newest: arrival of the
    newest packet. failure: what the demuxer raised, when the iteration has ended.
    """

    def __init__(
        self,
        packets: Generator[Packet[Any], None, None],
        stamp: Callable[[Packet[Any]], Arrival | None],
        clock: Clock,
        catch_up: CatchUp | None = None,
    ) -> None:
        self.skipped = 0
        self.newest: Arrival | None = None
        self.failure: Exception | None = None
        self._packets = packets
        self._stamp = stamp
        self._clock = clock
        self._catch_up = catch_up
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Packet[Any], Arrival]] = deque()
        self._bytes = 0
        self._keyframe_wanted_s: float | None = None  # since when; None: any packet is taken
        self._at_end: Callable[[], None] | None = None
        self._jumped = self._ended = self._closed = False
        self._thread = threading.Thread(target=self._demux, name="maskstream-demux", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        while (waiting := self._next()) is not None:
            yield waiting

    def close(self, timeout_s: float, at_end: Callable[[], None]) -> None:
        """End the thread and call `at_end`; if it waits for longer, the thread calls it later."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            if not self._ended:
                self._at_end = at_end
                return
        at_end()

    def _next(self) -> Waiting | None:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
                if self._closed or not self._waiting:
                    return None
                age_s = self._clock.monotonic() - self._waiting[0][1].monotonic_s
                if self._catch_up is not None and age_s > self._catch_up.late_s:
                    self._leave_out(everything=age_s > self._catch_up.behind_s)
                    if not self._waiting:
                        continue
                    age_s = self._clock.monotonic() - self._waiting[0][1].monotonic_s
                packet, arrival = self._waiting.popleft()
                self._bytes -= packet.size
                self._changed.notify_all()
                jumped, self._jumped = self._jumped, False
                late = self._catch_up is not None and age_s > self._catch_up.late_s / 2
                return Waiting(packet, arrival, late, jumped)

    def _demux(self) -> None:
        try:
            for packet in self._packets:
                arrival = self._stamp(packet)
                if arrival is None or self._closed:
                    break
                self._put(packet, arrival)
        except Exception as error:
            self.failure = error
        self._packets.close()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._at_end is not None:
            self._at_end()

    def _put(self, packet: Packet[Any], arrival: Arrival) -> None:
        with self._changed:
            if self._catch_up is None:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) < _READ_AHEAD)
            self.newest = arrival
            if not self._is_wanted(packet, arrival):
                self.skipped += 1
                return
            self._waiting.append((packet, arrival))
            self._bytes += packet.size
            full = len(self._waiting) > _MAX_PACKETS or self._bytes > _MAX_BYTES
            if full and self._catch_up is not None:
                self._leave_out(everything=True)
            self._changed.notify_all()

    def _is_wanted(self, packet: Packet[Any], arrival: Arrival) -> bool:
        if self._keyframe_wanted_s is None or not packet.size:
            return True
        waited_s = arrival.monotonic_s - self._keyframe_wanted_s
        if not packet.is_keyframe and waited_s < _MAX_KEYFRAME_WAIT_S:
            return False
        self._keyframe_wanted_s = None
        return True

    def _leave_out(self, *, everything: bool) -> None:
        """Leave out what comes before the newest video keyframe that waits, or `everything`."""
        keyframes = [n for n, (packet, _) in enumerate(self._waiting) if packet.is_keyframe]
        if keyframes and (keyframes[-1] > 0 or not everything):
            count = keyframes[-1]
        elif everything:
            count = sum(packet.size > 0 for packet, _ in self._waiting)
            self._keyframe_wanted_s = self._waiting[-1][1].monotonic_s
        else:
            return
        for _ in range(count):
            self._bytes -= self._waiting.popleft()[0].size
        self.skipped += count
        self._jumped |= count > 0
