"""Write to sinks in a separate thread, behind a bounded queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.errors import SinkHangsError
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.types import Frame, FrameResult, Sink

logger = logging.getLogger(__name__)

_WRITE_AHEAD = 8  # results waiting for the writer thread
_CLOSE_S = 5.0  # for the sinks beside one that hangs
_IDLE_S = 0.5  # without a result, after which sinks get `idle`


class SinkWriter:
    """Writes to sinks in a separate thread, behind a bounded queue.

    abandoned: a sink hung for longer than `abandon_after` allowed; the thread was left behind.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.times = StageTimes()
        self.abandoned = False
        self._sinks = sinks
        self._at: Sink | None = None  # the sink at work
        self._closed: list[Sink] = []
        self._ended = threading.Event()  # the thread, or the patience with it
        self._timer: threading.Timer | None = None
        self._complete = False
        self._failure: BaseException | None = None
        self._queue: FrameQueue[tuple[Frame, FrameResult]] = FrameQueue(_WRITE_AHEAD, Policy.WAIT)
        self._thread = threading.Thread(target=self._write, name="maskstream-writer", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, result: FrameResult) -> None:
        """Queue one result; raises an error of the writer thread."""
        self._queue.put((frame, result))

    def abandon_after(self, end_s: float) -> None:
        """Leave the thread behind if it has not ended by then; `put` and `finish` raise then."""
        if self._timer is None:
            self._timer = threading.Timer(end_s, self._abandon)
            self._timer.daemon = True
            self._timer.start()

    def finish(self, *, complete: bool) -> None:
        """Write queued results and close the sinks; raises an error of the writer thread."""
        self._complete = complete
        self._queue.close()
        self._ended.wait()
        if self._timer is not None:
            self._timer.cancel()
        if self.abandoned:
            closer = threading.Thread(target=self._close_others, daemon=True)
            closer.start()
            closer.join(_CLOSE_S)
        else:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _abandon(self) -> None:
        hanging = self._at
        if self._ended.is_set():
            return
        if hanging is None:  # the writer waits for the run
            self._timer = None
            self.abandon_after(_IDLE_S)
            return
        self.abandoned = True
        self._failure = SinkHangsError(
            f"the output {getattr(hanging, 'name', type(hanging).__name__)} hangs and was left "
            "behind; what it wrote may be incomplete"
        )
        self._queue.fail(self._failure)
        self._ended.set()

    def _incoming(self) -> Iterator[tuple[Frame, FrameResult]]:
        """Yield queued results; calls `idle` of the sinks while there is none."""
        while True:
            while not self._queue.wait(_IDLE_S):
                for sink in self._each():
                    sink.idle()
            result = next(self._queue, None)
            if result is None:
                return
            yield result

    def _write(self) -> None:
        try:
            for frame, result in self._incoming():
                with self.times.stage("write"):
                    for sink in self._each():
                        sink.write(frame, result)
        except BaseException as error:
            self._failure = self._failure or error
            self._queue.fail(error)
        for sink in self._each():
            self._close(sink)
        self._ended.set()

    def _each(self) -> Iterator[Sink]:
        """Yield the sinks; the one at work is `_at`."""
        try:
            for sink in self._sinks:
                self._at = sink
                yield sink
        finally:
            self._at = None

    def _close_others(self) -> None:
        """Close the sinks but the one that hangs."""
        hanging = self._at
        for sink in self._sinks:
            if sink is not hanging:
                self._close(sink)

    def _close(self, sink: Sink) -> None:
        if any(sink is closed for closed in self._closed):
            return
        self._closed.append(sink)
        try:
            sink.close(complete=self._complete and self._failure is None)
        except BaseException as error:
            self._failure = self._failure or error
