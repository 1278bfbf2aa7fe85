"""Optical flow, estimated in a separate thread while earlier frames are tracked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from maskstream.pipeline.types import Frame, SizeHW
from maskstream.trackers.flow import Flow, FlowEstimator


class FlowPrefetcher:
    """Estimates the flow to every frame from the previous one, ahead of its use.

    working_hw: working resolution. seconds: total time of estimation.
    """

    def __init__(self, working_hw: SizeHW) -> None:
        self.seconds = 0.0
        self._working_hw = working_hw
        self._estimator = FlowEstimator()
        self._scheduled: deque[Future[Flow | None]] = deque()
        self._thread = ThreadPoolExecutor(1, "maskstream-flow")

    def prefetch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield frames unchanged, scheduling flow for each."""
        for frame in frames:
            self._scheduled.append(self._thread.submit(self._estimate, frame))
            yield frame

    def next(self) -> Flow | None:
        """The flow to the next of the yielded frames; None for the first one."""
        return self._scheduled.popleft().result()

    def close(self) -> None:
        """Stop the thread; queued work is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _estimate(self, frame: Frame) -> Flow | None:
        started = time.perf_counter()
        flow = self._estimator.step(frame.gray(self._working_hw))
        if flow is not None:
            _ = flow.residual, flow.camera, flow.occluded  # cached properties, computed here
        self.seconds += time.perf_counter() - started
        return flow
