"""Compose results from tracked frames in a separate thread: refinement and label maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.compositor import compose
from maskstream.pipeline.tracking.refinement import Refiner, TrackedFrame
from maskstream.pipeline.types import Frame, FrameResult, SizeHW
from maskstream.trackers.track import Track


class ComposedFrame(NamedTuple):
    """A tracked frame after refinement, and its result."""

    tracked: TrackedFrame
    result: FrameResult


class ResultComposer:
    """Composes results in frame order while the next frames are tracked.

    extra_tracks: additional tracks of a frame, by its index. refine: hold frames between two
    keyframes and blend them with the second one.
    """

    def __init__(
        self, frame_hw: SizeHW, extra_tracks: Callable[[int], Sequence[Track]], *, refine: bool
    ) -> None:
        self.times = StageTimes()
        self._frame_hw = frame_hw
        self._extra_tracks = extra_tracks
        self._refiner = Refiner() if refine else None
        self._thread = ThreadPoolExecutor(1, "maskstream-compose")
        self._shown: Sequence[Track] = ()

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks of the frame whose result came last."""
        return self._shown

    def results(
        self, frames: Iterable[TrackedFrame], *, ahead: int, times: StageTimes
    ) -> Iterator[tuple[Frame, FrameResult]]:
        """Yield results in frame order; `ahead` frames are tracked while one is composed.

        times: the caller's; waiting is added to it, and the times of this thread are copied to it.
        """
        waiting: deque[Future[list[ComposedFrame]]] = deque()

        def next_results() -> Iterator[tuple[Frame, FrameResult]]:
            with times.stage("wait"):
                done = waiting.popleft().result()
            times.seconds |= dict(self.times.seconds)
            for tracked, result in done:
                self._shown = tracked.tracks
                yield tracked.frame, result

        for tracked in frames:
            waiting.append(self.submit(tracked))
            if len(waiting) > ahead:
                yield from next_results()
        waiting.append(self.flush())
        while waiting:
            yield from next_results()

    def submit(self, tracked: TrackedFrame) -> Future[list[ComposedFrame]]:
        """Queue the next frame; the future holds the frames that it completes."""
        return self._thread.submit(self._compose, tracked)

    def flush(self) -> Future[list[ComposedFrame]]:
        """Queue the end of the stream; the future holds the frames that were still held."""
        return self._thread.submit(self._compose_rest)

    def close(self) -> None:
        """Stop the thread; queued work is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _compose(self, tracked: TrackedFrame) -> list[ComposedFrame]:
        if self._refiner is None:
            return [self._compose_one(tracked)]
        with self.times.stage("refine"):
            done = self._refiner.put(tracked)
        return [self._compose_one(each) for each in done]

    def _compose_rest(self) -> list[ComposedFrame]:
        rest = [] if self._refiner is None else self._refiner.rest()
        return [self._compose_one(each) for each in rest]

    def _compose_one(self, tracked: TrackedFrame) -> ComposedFrame:
        frame = tracked.frame
        with self.times.stage("compose"):
            seen = compose([*tracked.tracks, *self._extra_tracks(frame.index)], self._frame_hw)
        result = FrameResult(
            frame.index,
            frame.pts,
            frame.time_base,
            tracked.keyframe,
            seen.labels,
            seen.objects,
            seen.covered,
            None if frame.arrival is None else frame.arrival.unix_s,
        )
        return ComposedFrame(tracked, result)
