"""Inputs of the camera page: device names of the server, and images pushed by the browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import numpy as np

from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.errors import QueueClosedError, UnreadableSourceError
from maskstream.pipeline.sources.checks import check_size
from maskstream.pipeline.types import RgbImage, SizeHW

_SILENT_S = 15.0  # without an image from the browser
_STAMPS_KEPT = 64


def is_device(text: str) -> bool:
    """Whether a text names a camera device of this machine: `/dev/video0` or `0`."""
    return bool(re.fullmatch(r"(/dev/video)?\d{1,2}", text))


class PushedImages:
    """Images that a browser sends from its camera, iterated once; only the newest one is kept.

    All have the size of the first. stamps: the browser's own stamps of the last images, by frame
    index.
    """

    def __init__(self) -> None:
        self.stamps: dict[int, float] = {}
        self._size_hw: SizeHW | None = None
        self._queue: FrameQueue[tuple[RgbImage, float]] = FrameQueue(1, Policy.LATEST)

    def push(self, encoded: bytes, stamp: float) -> None:
        """Add an encoded image. Raises `UnreadableSourceError`, `QueueClosedError`."""
        data = np.frombuffer(encoded, np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if bgr is None:
            raise UnreadableSourceError("This is not a camera image (JPEG, PNG or WebP).")
        check_size("The camera", (bgr.shape[0], bgr.shape[1]))
        if self._size_hw is None:
            self._size_hw = bgr.shape[0], bgr.shape[1]
        if bgr.shape[:2] != self._size_hw:  # the device was turned
            bgr = cv2.resize(bgr, self._size_hw[::-1], interpolation=cv2.INTER_AREA)
        self._queue.put((np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), stamp))

    def close(self) -> None:
        """End the iteration."""
        self._queue.close()

    def __iter__(self) -> Iterator[RgbImage]:
        """Wait for images. Raises `UnreadableSourceError` if none arrives."""
        number = 0
        while self._queue.wait(_SILENT_S):
            try:
                rgb, self.stamps[number] = self._queue.get()
            except QueueClosedError:
                break
            self.stamps.pop(number - _STAMPS_KEPT, None)
            yield rgb
            number += 1
        if number == 0:
            raise UnreadableSourceError("The browser sent no image of its camera.")
