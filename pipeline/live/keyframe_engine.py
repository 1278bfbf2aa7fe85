"""What computes keyframes: networks and one thread, of one camera or shared by several.

Each camera has at most one keyframe that waits, and they are computed in the order in which they
were begun: no camera waits for more than one keyframe of each other one, however slow they are.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.memory.model import MemoryModel
from maskstream.pipeline.models.networks import Networks, open_networks
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.types import SizeHW


class KeyframeEngine:
    """Networks and the thread they run in, for cameras with the same model."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "maskstream-keyframes")
        self._opening = threading.Lock()
        self._opened: list[Networks] = []

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run `work` after what was submitted before; the networks may be used there only."""
        return self._thread.submit(work)

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
