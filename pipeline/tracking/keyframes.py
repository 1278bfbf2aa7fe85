"""Keyframes: their budget, and encoding them ahead in a separate thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from maskstream.pipeline.models.networks import KeyframeFeatures, Networks
from maskstream.pipeline.tracking.detecting import DetectorRuns
from maskstream.pipeline.types import Frame


@dataclass(frozen=True, slots=True)
class KeyframeBudget:
    """Limits of what keyframes may cost.

    interval: frames between regular ones. input_share: of the encoder's full input size. prompts:
    seeding prompts per keyframe. tracks_per_keyframe: maximum of tracks decoded per keyframe, in
    turn.
    """

    interval: int
    input_share: float
    prompts: int
    tracks_per_keyframe: int


class KeyframeEncoder:
    """Encodes keyframes in a separate thread, regular and planned ones ahead of their use.

    Every `interval`-th frame from the first is a regular keyframe, whatever other frames become
    keyframes too. Others are planned some frames before: they depend on what was tracked, never on
    timing, so that runs are deterministic. detector: its frames are keyframes, too, and its
    detections come with their features. seconds, detecting_s: total time of encoding and detecting.
    """

    def __init__(
        self, networks: Networks, interval: int, detector: DetectorRuns | None = None
    ) -> None:
        self.seconds = 0.0
        self.detecting_s = 0.0
        self._detector = detector
        self._networks = networks
        self._interval = interval
        self._frames = 0  # received
        self._passed = 0  # yielded
        self._waiting: deque[Frame] = deque()
        self._planned: set[int] = set()  # positions of frames that were not received yet
        self._regular: set[int] = set()
        self._detected: set[int] = set()
        self._encoding: dict[int, Future[KeyframeFeatures]] = {}
        self._thread = ThreadPoolExecutor(1, "maskstream-encoder")

    def prefetch(self, frames: Iterable[Frame], max_ahead: int) -> Iterator[Frame]:
        """Yield frames unchanged, starting to encode keyframes up to `max_ahead` frames earlier."""
        for frame in frames:
            regular = self._frames % self._interval == 0
            if self._detector is not None and self._detector.is_due(self._frames, frame):
                self._detected.add(frame.index)
            if regular or self._frames in self._planned or frame.index in self._detected:
                self._start_encoding(frame)
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
        """Make the frame `later` frames (from 1) after the last yielded one a keyframe."""
        if later <= len(self._waiting):
            self._start_encoding(self._waiting[later - 1])
        else:
            self._planned.add(self._passed + later - 1)

    def is_keyframe(self, later: int) -> bool:
        """Whether the frame `later` frames (from 1) after the last yielded one is a keyframe."""
        position = self._passed + later - 1
        if later <= len(self._waiting):
            return self._waiting[later - 1].index in self._encoding
        return position in self._planned or position % self._interval == 0

    def is_regular(self, frame: Frame) -> bool:
        """Whether a yielded frame is a regular keyframe (until it is encoded)."""
        return frame.index in self._regular

    def is_planned(self, frame: Frame) -> bool:
        """Whether a yielded frame is a keyframe (until it is encoded)."""
        return frame.index in self._encoding

    def encode(self, frame: Frame, *, fresh: bool = False) -> KeyframeFeatures:
        """Features of a frame; waits for its encoding, or starts it now.

        fresh: it begins a shot, so that the detector runs on it in any case.
        """
        self._regular.discard(frame.index)
        started = self._encoding.pop(frame.index, None) or self._thread.submit(self._encode, frame)
        features = started.result()
        runs = self._detector
        if fresh and runs is not None and features.detections is None and runs.knows(frame):
            self._detect(frame, features, runs)
        return features

    def close(self) -> None:
        """Stop the thread; queued work is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _pass_on(self) -> Frame:
        self._passed += 1
        return self._waiting.popleft()

    def _start_encoding(self, frame: Frame) -> None:
        if frame.index not in self._encoding:
            self._encoding[frame.index] = self._thread.submit(self._encode, frame)

    def _encode(self, frame: Frame) -> KeyframeFeatures:
        started = time.perf_counter()
        features = self._networks.encode(frame)
        self.seconds += time.perf_counter() - started
        if self._detector is not None and frame.index in self._detected:
            self._detected.discard(frame.index)
            self._detect(frame, features, self._detector)
        return features

    def _detect(self, frame: Frame, features: KeyframeFeatures, detector: DetectorRuns) -> None:
        started = time.perf_counter()
        features.detections = detector.detect(frame)
        self.detecting_s += time.perf_counter() - started
