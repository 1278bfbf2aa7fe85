"""A live source that reconnects with backoff and marks the gaps between its frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Event

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.live.gaps import GapFinder
from maskstream.pipeline.sources.stream import LiveReader
from maskstream.pipeline.types import Arrival, Frame, FrameReader, Source, SourceInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """When a pause counts as a gap, and how long to wait between attempts to reconnect.

    gap_s: time without a frame that counts as a gap if it is much longer than usual (a new
    connection always counts). retry_first_s: wait before the first attempt; each further one is
    twice as long, up to `retry_max_s`.
    """

    gap_s: float = 1.0
    retry_first_s: float = 0.5
    retry_max_s: float = 10.0


class ReconnectingSource:
    """Frames of a live source, over as many connections as it takes.

    Frame indices continue from connection to connection, and all frames have the size of the first;
    timestamps are the source's own, in the time base of the first connection. The first frame after
    a gap has `Arrival.gap_s` set. A source that cannot be opened at all raises `SourceError`; after
    that the frames end only with `stop`, or with the source if it is not `reopenable`. While paused
    (`pause` to `resume`) a camera's frames are read and discarded, so that the next one is recent;
    a source that is not reopenable keeps its frames.
    connected: whether the source is open. connections: number made so far. gaps: number of them.
    trouble: the last error. spare_decoding: skip non-reference frames, where there are any.
    """

    def __init__(
        self,
        source: Source,
        *,
        reopenable: bool,
        policy: ReconnectPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        stopped: Event | None = None,
    ) -> None:
        """stopped: the event that `stop` sets, if the source waits for it, too."""
        self.connected = False
        self.connections = self.gaps = 0
        self.trouble = ""
        self.spare_decoding = False
        self._reader: FrameReader | None = None
        self._last_s: float | None = None
        self._skipped_before = 0  # by earlier connections
        self._source = source
        self._reopenable = reopenable
        self._policy = policy or ReconnectPolicy()
        self._clock = clock
        self._stopped = stopped or Event()
        self._running = Event()
        self._running.set()

    @property
    def skipped(self) -> int:
        """Frames skipped before decoding, because it was behind."""
        return self._skipped_before + getattr(self._reader, "skipped", 0)

    @property
    def newest_s(self) -> float | None:
        """Arrival of what came last, by the clock for latency; None if nothing has come."""
        newest_s: float | None = getattr(self._reader, "newest_s", None)
        return self._last_s if newest_s is None else newest_s

    def pause(self) -> None:
        """Yield no frames until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        """Yield frames from now on."""
        self._running.set()

    def stop(self) -> None:
        """End the iteration at the next frame, or when a waiting read times out."""
        self._stopped.set()
        self._running.set()

    @contextmanager
    def open(self) -> Iterator[_Reader]:
        """Connect for the first time. Raises `SourceError`."""
        with ExitStack() as connection:
            yield _Reader(self, connection.enter_context(self._source.open()), connection)

    def _frames(self, first: FrameReader, connection: ExitStack) -> Iterator[Frame]:
        index, connections, skipped = 0, self.connections, 0
        finder = GapFinder(self._policy.gap_s)
        last: Arrival | None = None
        if not self._reopenable:
            self._running.wait()
        for frame in self._incoming(first, connection):
            if self._stopped.is_set():
                return
            if not self._running.is_set():
                continue
            now = frame.arrival or Arrival(self._clock.monotonic(), self._clock.unix())
            self._last_s = now.monotonic_s
            if last is not None:
                idle_s = now.monotonic_s - last.monotonic_s
                if self.connections != connections or finder.is_gap(idle_s):
                    now = self._after_gap(now, idle_s, self.skipped - skipped)
            self.trouble = ""
            yield _fitted(replace(frame, index=index, arrival=now), first.info)
            index, last, connections = index + 1, now, self.connections
            skipped = self.skipped

    def _after_gap(self, arrival: Arrival, idle_s: float, skipped: int) -> Arrival:
        reason = self.trouble or (
            f"{skipped} frames were skipped to catch up" if skipped else "no frame arrived"
        )
        self.gaps += 1
        logger.warning("no frame for %.1f s: %s", idle_s, reason)
        return replace(arrival, gap_s=idle_s, gap_reason=reason)

    def _incoming(self, first: FrameReader, connection: ExitStack) -> Iterator[Frame]:
        """Yield the frames of the first connection and of those after it."""
        yield from self._connection(first)
        connection.close()  # a camera can be opened only once at a time
        self.trouble = getattr(first, "ended", "the stream ended")
        wait_s = self._policy.retry_first_s
        while self._reopenable and not self._clock.wait(self._stopped, wait_s):
            wait_s = min(2 * wait_s, self._policy.retry_max_s)
            try:
                with self._source.open() as reader:
                    wait_s = self._policy.retry_first_s
                    yield from self._connection(reader)
                    self.trouble = getattr(reader, "ended", "the stream ended")
                    first.report.corrupt_packets += reader.report.corrupt_packets
                first.report.recording_failed = (
                    first.report.recording_failed or reader.report.recording_failed
                )
            except SourceError as error:
                self.trouble = str(error)
                logger.info("not connected, next attempt in %.1f s: %s", wait_s, error)

    def _connection(self, reader: FrameReader) -> Iterator[Frame]:
        self.connected = True
        self.connections += 1
        self._reader = reader
        try:
            for frame in reader:
                yield frame
                if isinstance(reader, LiveReader):
                    reader.spare_decoding = self.spare_decoding
        finally:
            self.connected = False
            self._skipped_before, self._reader = self.skipped, None


class _Reader:
    def __init__(
        self, source: ReconnectingSource, first: FrameReader, connection: ExitStack
    ) -> None:
        self.info = first.info
        self.report = first.report
        self._frames = source._frames(first, connection)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames


def _fitted(frame: Frame, info: SourceInfo) -> Frame:
    """Convert a frame to the size and time base of the first connection."""
    if frame.size_hw != info.size_hw:
        frame = replace(frame, size_hw=info.size_hw)
    if frame.time_base != info.time_base and frame.pts is not None:
        pts = round(frame.pts * frame.time_base / info.time_base)
        frame = replace(frame, pts=pts)
    return frame if frame.time_base == info.time_base else replace(frame, time_base=info.time_base)
