"""Motion between frames, estimated in a thread of its own while earlier frames are tracked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from maskstream.pipeline.types import Frame, SizeHW
from maskstream.trackers.flow import Flow, FlowEstimator


class FlowPrefetcher:
    """Flow to every frame from the one before, begun when the frame comes by.

    working_hw: size of the grid. seconds: spent estimating so far.
    """

    def __init__(self, working_hw: SizeHW) -> None:
        self.seconds = 0.0
        self._working_hw = working_hw
        self._estimator = FlowEstimator()
        self._begun: deque[Future[Flow | None]] = deque()
        self._thread = ThreadPoolExecutor(1, "maskstream-flow")

    def prefetch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on, begun to be looked at."""
        for frame in frames:
            self._begun.append(self._thread.submit(self._estimate, frame))
            yield frame

    def next(self) -> Flow | None:
        """The flow to the next of the frames that were passed on; None for the first of all."""
        return self._begun.popleft().result()

    def close(self) -> None:
        """End the thread; what it has not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _estimate(self, frame: Frame) -> Flow | None:
        begun = time.perf_counter()
        flow = self._estimator.step(frame.gray(self._working_hw))
        if flow is not None:
            _ = flow.residual, flow.camera, flow.occluded  # are computed when first asked for
        self.seconds += time.perf_counter() - begun
        return flow
