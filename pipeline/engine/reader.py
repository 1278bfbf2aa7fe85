"""Read a source into a queue in a separate thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from maskstream.pipeline.engine.frame_queue import FrameQueue
from maskstream.pipeline.errors import QueueClosedError
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.types import Frame, Source, SourceInfo, SourceReport

_THREAD_END_S = 30.0


class SourceReader:
    """Reads a source into a queue in a separate thread."""

    def __init__(self, source: Source, queue: FrameQueue[Frame]) -> None:
        self.times = StageTimes()
        self.report = SourceReport()
        self._source = source
        self._queue = queue
        self._info: Future[SourceInfo] = Future()
        self._thread = threading.Thread(target=self._read, name="maskstream-reader", daemon=True)

    def start(self) -> SourceInfo:
        """Open the source and start reading; returns its info or raises its `SourceError`."""
        self._thread.start()
        return self._info.result()

    def stop(self) -> None:
        """Stop the thread, also while it waits."""
        self._queue.cancel()
        self._thread.join(_THREAD_END_S)

    def _read(self) -> None:
        try:
            with self._source.open() as reader:
                self.report = reader.report
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
            if not self._info.done():
                self._info.set_exception(error)
            self._queue.fail(error)
