"""Keyframes: when the encoder runs, and running it ahead in a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from maskstream.pipeline.segmenter.model import Features, Segmenter
from maskstream.pipeline.types import Frame


@dataclass(frozen=True, slots=True)
class KeyframeBudget:
    """What keyframes may cost.

    interval: frames between regular ones. input_share: of the encoder's full input size. prompts:
    asked on one to find new objects. tracks_per_keyframe: tracks that one corrects at most, all in
    turn.
    """

    interval: int
    input_share: float
    prompts: int
    tracks_per_keyframe: int


class KeyframeEncoder:
    """Encodes frames in its own thread, regular keyframes before anybody asks for them.

    Regular keyframes are every `interval`-th frame from the first on, whatever other frames become
    keyframes too: what is encoded ahead does not depend on what is tracked, so a run repeats itself
    bit for bit. seconds: spent encoding so far.
    """

    def __init__(self, segmenter: Segmenter, interval: int) -> None:
        self.seconds = 0.0
        self.segmenter = segmenter
        self._interval = interval
        self._frames = 0
        self._begun: dict[int, Future[Features]] = {}
        self._thread = ThreadPoolExecutor(1, "maskstream-encoder")

    def prefetch(self, frames: Iterable[Frame], max_ahead: int) -> Iterator[Frame]:
        """Pass frames on, begun to be encoded up to `max_ahead` frames before."""
        waiting: deque[Frame] = deque()
        for frame in frames:
            if self._frames % self._interval == 0:
                self._begun[frame.index] = self._thread.submit(self._encode, frame)
            self._frames += 1
            waiting.append(frame)
            if len(waiting) > max_ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()

    def is_regular(self, frame: Frame) -> bool:
        """Whether a frame that was passed on is a regular keyframe (until it is encoded)."""
        return frame.index in self._begun

    def encode(self, frame: Frame) -> Features:
        """The features of a frame; waits for what was begun, or encodes it now."""
        begun = self._begun.pop(frame.index, None) or self._thread.submit(self._encode, frame)
        return begun.result()

    def close(self) -> None:
        """End the thread; what it has not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _encode(self, frame: Frame) -> Features:
        begun = time.perf_counter()
        features = self.segmenter.encode(frame)
        self.seconds += time.perf_counter() - begun
        return features
