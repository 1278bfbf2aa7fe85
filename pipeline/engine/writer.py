"""Write to sinks in a separate thread, behind a bounded queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.types import Frame, FrameResult, Sink

logger = logging.getLogger(__name__)

_WRITE_AHEAD = 8  # results waiting for the writer thread
_IDLE_S = 0.5  # without a result, after which sinks get `idle`


class SinkWriter:
    """Writes to sinks in a separate thread, behind a bounded queue."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.times = StageTimes()
        self._sinks = sinks
        self._complete = False
        self._failure: BaseException | None = None
        self._queue: FrameQueue[tuple[Frame, FrameResult]] = FrameQueue(_WRITE_AHEAD, Policy.WAIT)
        self._thread = threading.Thread(target=self._write, name="maskstream-writer", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, result: FrameResult) -> None:
        """Queue one result; raises an error of the writer thread."""
        self._queue.put((frame, result))

    def finish(self, *, complete: bool) -> None:
        """Write queued results and close the sinks; raises an error of the writer thread."""
        self._complete = complete
        self._queue.close()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _incoming(self) -> Iterator[tuple[Frame, FrameResult]]:
        """Yield queued results; calls `idle` of the sinks while there is none."""
        while True:
            while not self._queue.wait(_IDLE_S):
                for sink in self._sinks:
                    sink.idle()
            result = next(self._queue, None)
            if result is None:
                return
            yield result

    def _write(self) -> None:
        try:
            for frame, result in self._incoming():
                with self.times.stage("write"):
                    for sink in self._sinks:
                        sink.write(frame, result)
        except BaseException as error:
            self._failure = error
            self._queue.fail(error)
        for sink in self._sinks:
            try:
                sink.close(complete=self._complete and self._failure is None)
            except BaseException as error:
                self._failure = self._failure or error
