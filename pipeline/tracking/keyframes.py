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
    keyframes too. Others are planned some frames before, by their place: which they are depends on
    what was tracked, never on when something was encoded, so a run repeats itself bit for bit.
    seconds: spent encoding so far.
    """

    def __init__(self, segmenter: Segmenter, interval: int) -> None:
        self.seconds = 0.0
        self.segmenter = segmenter
        self._interval = interval
        self._frames = 0  # that came in
        self._passed = 0  # and were passed on
        self._waiting: deque[Frame] = deque()
        self._planned: set[int] = set()  # places of frames that have not come in yet
        self._regular: set[int] = set()
        self._begun: dict[int, Future[Features]] = {}
        self._thread = ThreadPoolExecutor(1, "maskstream-encoder")

    def prefetch(self, frames: Iterable[Frame], max_ahead: int) -> Iterator[Frame]:
        """Pass frames on, begun to be encoded up to `max_ahead` frames before."""
        for frame in frames:
            regular = self._frames % self._interval == 0
            if regular or self._frames in self._planned:
                self._begin(frame)
            if regular:
                self._regular.add(frame.index)
            self._planned.discard(self._frames)
            self._frames += 1
            self._waiting.append(frame)
            if len(self._waiting) > max_ahead:
                yield self._pass_on()
        while self._waiting:
            yield self._pass_on()

    def plan(self, later: int) -> None:
        """Make the frame `later` frames (from 1) after the one that was passed on a keyframe."""
        if later <= len(self._waiting):
            self._begin(self._waiting[later - 1])
        else:
            self._planned.add(self._passed + later - 1)

    def is_keyframe(self, later: int) -> bool:
        """Whether the frame `later` frames (from 1) after the one passed on is one already."""
        place = self._passed + later - 1
        if later <= len(self._waiting):
            return self._waiting[later - 1].index in self._begun
        return place in self._planned or place % self._interval == 0

    def is_regular(self, frame: Frame) -> bool:
        """Whether a frame that was passed on is a regular keyframe (until it is encoded)."""
        return frame.index in self._regular

    def is_planned(self, frame: Frame) -> bool:
        """Whether a frame that was passed on is a keyframe (until it is encoded)."""
        return frame.index in self._begun

    def encode(self, frame: Frame) -> Features:
        """The features of a frame; waits for what was begun, or encodes it now."""
        self._regular.discard(frame.index)
        begun = self._begun.pop(frame.index, None) or self._thread.submit(self._encode, frame)
        return begun.result()

    def close(self) -> None:
        """End the thread; what it has not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _pass_on(self) -> Frame:
        self._passed += 1
        return self._waiting.popleft()

    def _begin(self, frame: Frame) -> None:
        if frame.index not in self._begun:
            self._begun[frame.index] = self._thread.submit(self._encode, frame)

    def _encode(self, frame: Frame) -> Features:
        begun = time.perf_counter()
        features = self.segmenter.encode(frame)
        self.seconds += time.perf_counter() - begun
        return features
