"""Read a source into a queue in a separate thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from maskstream.pipeline.engine.frame_queue import FrameQueue
from maskstream.pipeline.errors import QueueClosedError
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.types import Frame, Source, SourceInfo, SourceReport

_THREAD_END_S = 30.0


class SourceReader:
    """Reads a source into a queue in a separate thread.

    end_s: how long `stop` waits for the thread. abandoned: it did not end in that time, because the
    source waits for something; it ends when that comes.
    """

    def __init__(
        self, source: Source, queue: FrameQueue[Frame], end_s: float = _THREAD_END_S
    ) -> None:
        self.times = StageTimes()
        self.report = SourceReport()
        self.abandoned = False
        self._end_s = end_s
        self._source = source
        self._queue = queue
        self._info: Future[SourceInfo | None] = Future()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="maskstream-reader", daemon=True)

    def start(self) -> SourceInfo | None:
        """Open the source and start reading.

        Returns its info, or None if `end` was called first. Raises its `SourceError`.
        """
        self._thread.start()
        return self._info.result()

    def end(self) -> None:
        """End the queue after the frames that were read, whatever the thread waits for."""
        self._queue.close()
        with suppress(InvalidStateError):
            self._info.set_result(None)

    def check_ended(self) -> None:
        """Stop the thread, and raise what its source failed with before it gave anything."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop the thread, also while it waits for the queue; abandon one that waits longer."""
        self._queue.cancel()
        self._thread.join(self._end_s)
        self.abandoned = self._thread.is_alive()

    def _read(self) -> None:
        try:
            with self._source.open() as reader:
                self.report = reader.report
                with suppress(InvalidStateError):  # `end` came first
                    self._info.set_result(reader.info)
                frames = iter(reader)
                while True:
                    with self.times.stage("read"):
                        frame = next(frames, None)
                    if frame is None:
                        break
                    self._queue.put(frame)
            self._queue.close()
        except QueueClosedError:
            return
        except BaseException as error:
            self._error = error
            with suppress(InvalidStateError):
                self._info.set_exception(error)
            self._queue.fail(error)
