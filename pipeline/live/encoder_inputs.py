"""The sizes of the encoder's input: the full one at once, smaller ones when they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.tracking.recognition import Recognizer
from maskstream.pipeline.tracking.seeding import Seeder

logger = logging.getLogger(__name__)


class EncoderInput(NamedTuple):
    """What works on one size; the recognizers share their memory of objects."""

    segmenter: Segmenter
    recognizer: Recognizer
    seeder: Seeder


class EncoderInputs:
    """The inputs by their share of the full size.

    A smaller one is loaded in a thread of its own when it is first asked for; until it is there the
    one before goes on. load: makes the one of a share.
    """

    def __init__(self, full: EncoderInput, load: Callable[[float], EncoderInput]) -> None:
        self._load = load
        self._now = full
        self._loaded: dict[float, Future[EncoderInput]] = {1.0: Future()}
        self._loaded[1.0].set_result(full)
        self._thread = ThreadPoolExecutor(1, "maskstream-load")

    def at(self, share: float) -> EncoderInput:
        """The input of a share, or what there is instead; raises what loading it did."""
        if share not in self._loaded:
            logger.info("loading the encoder for an input of %g of its size", share)
            self._loaded[share] = self._thread.submit(self._load, share)
        if self._loaded[share].done():
            self._now = self._loaded[share].result()
        return self._now

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)
