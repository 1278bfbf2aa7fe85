"""What computes keyframes: networks and one thread, of one camera or shared by several.

A camera begins a keyframe when it is its turn: of those that want one, the camera comes first that
has waited longest since its last. So all get as many, and a keyframe is of a recent frame, because
it was not begun before another camera's ended.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.memory.model import MemoryModel
from maskstream.pipeline.models.networks import Networks, open_networks
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.types import SizeHW

_AT_ONCE = 2  # keyframes begun: one is computed, the next one is ready
_WISH_S = 1.5  # a camera that has not asked again for so long has lost its turn


class KeyframeEngine:
    """Networks and the thread they run in, for cameras with the same model."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._thread = ThreadPoolExecutor(1, "maskstream-keyframes")
        self._opening = threading.Lock()
        self._opened: list[Networks] = []
        self._clock = clock
        self._turns = threading.Lock()
        self._begun = self._served = 0
        self._last: dict[Hashable, int] = {}  # number of a camera's last keyframe, among all
        self._wishes: dict[Hashable, float] = {}  # when a camera last asked

    def is_turn(self, camera: Hashable) -> bool:
        """Whether a camera that wants a keyframe may begin it now; else it asks again."""
        with self._turns:
            now_s = self._clock.monotonic()
            self._wishes[camera] = now_s
            asking = [c for c, asked_s in self._wishes.items() if now_s - asked_s <= _WISH_S]
            first = min(asking, key=lambda c: self._last.get(c, 0))
            return self._begun < _AT_ONCE and first == camera

    def submit(self, camera: Hashable, work: Callable[[], None]) -> Future[None]:
        """Compute a camera's keyframe; the networks may be used in `work` only."""
        with self._turns:
            self._wishes.pop(camera, None)
            self._begun += 1
            self._served += 1
            self._last[camera] = self._served
        future = self._thread.submit(work)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[None]) -> None:
        with self._turns:
            self._begun -= 1

    def networks(
        self, config: PipelineConfig, model: Path, frame_hw: SizeHW, input_share: float = 1.0
    ) -> Networks:
        """Networks for frames of one size; opened only if no others have the same input.

        Opening takes seconds. Arguments and errors are those of `open_networks`.
        """
        with self._opening:
            for opened in self._opened:
                shared = _for_frames(opened, frame_hw, input_share)
                if shared is not None:
                    return shared
            memory = self._memory()
            new = open_networks(config, model, frame_hw, input_share=input_share, memory=memory)
            self._opened.append(new)
            return new

    def close(self) -> None:
        """Wait for the keyframe that runs, end the thread and let go of the networks."""
        self._thread.shutdown(cancel_futures=True)
        self._opened.clear()

    def _memory(self) -> MemoryModel | None:
        return self._opened[0].memory if self._opened else None


def _for_frames(networks: Networks, frame_hw: SizeHW, input_share: float) -> Networks | None:
    """The same networks for frames of another size; None if these need another input."""
    segmenter = _resized(networks.segmenter, frame_hw, input_share)
    if networks.tracks is networks.segmenter:
        return replace(networks, segmenter=segmenter, tracks=segmenter) if segmenter else None
    tracks = _resized(networks.tracks, frame_hw, input_share)
    return replace(networks, segmenter=segmenter, tracks=tracks) if segmenter and tracks else None


def _resized(segmenter: Segmenter, frame_hw: SizeHW, input_share: float) -> Segmenter | None:
    geometry = segmenter.card.fit(frame_hw, input_share)
    if geometry.input_hw != segmenter.geometry.input_hw or geometry.side != segmenter.geometry.side:
        return None
    resized = copy.copy(segmenter)
    resized.geometry = geometry
    return resized
