"""A live source that outlives its connection: it reconnects with backoff and says where it gaps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Event

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.types import Arrival, Frame, FrameReader, Source, SourceInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """gap_s: time without a frame that counts as a gap (a new connection always does).

    retry_first_s: wait before the first attempt to reconnect; each further one is twice as long, up
    to most_s.
    """

    gap_s: float = 1.0
    retry_first_s: float = 0.5
    retry_max_s: float = 10.0


class ReconnectingSource:
    """Frames of a live source, over as many connections as it takes.

    They are numbered on from connection to connection and shown at the size of the first frame;
    timestamps are the source's own, in the time base of the first connection. The first frame after
    a gap says so (`Arrival.gap_s`). A source that cannot be opened at all raises `SourceError`;
    after that only `stop` ends it, or its own end if it does not `return`. While it is held
    (`pause` to `resume`) nobody is ready for frames: a camera's are read and thrown away, so that
    the first one afterwards is new; a source that does not return keeps its frames.
    connected: whether frames may come. connections: made so far. trouble: what went wrong last.
    """

    def __init__(
        self,
        source: Source,
        *,
        reopenable: bool,
        policy: ReconnectPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.connected = False
        self.connections = 0
        self.trouble = ""
        self._source = source
        self._reopenable = reopenable
        self._policy = policy or ReconnectPolicy()
        self._clock = clock
        self._stopped = Event()
        self._wanted = Event()
        self._wanted.set()

    def pause(self) -> None:
        """Give no frame until `resume`."""
        self._wanted.clear()

    def resume(self) -> None:
        """Give frames, from now on."""
        self._wanted.set()

    def stop(self) -> None:
        """Let the frames end with the next one; a read that waits ends when it stalls."""
        self._stopped.set()
        self._wanted.set()

    @contextmanager
    def open(self) -> Iterator[_Reader]:
        """Connect for the first time. Raises `SourceError`."""
        with ExitStack() as connection:
            yield _Reader(self, connection.enter_context(self._source.open()), connection)

    def _frames(self, first: FrameReader, connection: ExitStack) -> Iterator[Frame]:
        index, connections = 0, self.connections
        last: Arrival | None = None
        if not self._reopenable:
            self._wanted.wait()
        for frame in self._incoming(first, connection):
            if self._stopped.is_set():
                return
            if not self._wanted.is_set():
                continue
            now = frame.arrival or Arrival(self._clock.monotonic(), self._clock.unix())
            away_s = 0.0 if last is None else now.monotonic_s - last.monotonic_s
            anew = last is not None and self.connections != connections
            if anew or away_s > self._policy.gap_s:
                now = replace(now, gap_s=away_s, gap_reason=self.trouble or "no frame came")
                logger.warning("no frame for %.1f s: %s", away_s, now.gap_reason)
            self.trouble = ""
            yield _fitted(replace(frame, index=index, arrival=now), first.info)
            index, last, connections = index + 1, now, self.connections

    def _incoming(self, first: FrameReader, connection: ExitStack) -> Iterator[Frame]:
        """Frames of the first connection and of those that follow it."""
        yield from self._connection(first)
        connection.close()  # a camera can be opened once at a time
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
            except SourceError as error:
                self.trouble = str(error)
                logger.info("not connected, next attempt in %.1f s: %s", wait_s, error)

    def _connection(self, reader: FrameReader) -> Iterator[Frame]:
        self.connected = True
        self.connections += 1
        try:
            yield from reader
        finally:
            self.connected = False


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
    """A frame at the size and in the time base that the first connection had."""
    if frame.size_hw != info.size_hw:
        frame = replace(frame, size_hw=info.size_hw)
    if frame.time_base != info.time_base and frame.pts is not None:
        pts = round(frame.pts * frame.time_base / info.time_base)
        frame = replace(frame, pts=pts)
    return frame if frame.time_base == info.time_base else replace(frame, time_base=info.time_base)
