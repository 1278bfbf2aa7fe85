"""Helpers shared by file and live processing: working resolution, snapshots, round robin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import SizeHW
from maskstream.trackers.track import LOGIT_LIMIT, FloatMap, Track

T = TypeVar("T")

DEFAULT_FRAME_INTERVAL_S = 1 / 25  # between frames without timestamps


def round_robin(items: Sequence[T], limit: int, cursor: int) -> tuple[list[T], int]:
    """Next `limit` items, wrapping around; also the new cursor."""
    if not items:
        return [], cursor
    start, count = cursor % len(items), min(len(items), limit)
    return [*items, *items][start : start + count], start + count


def snapshot(track: Track) -> Track:
    """Shallow copy of a track; its arrays are never mutated."""
    return replace(track, motion=replace(track.motion))


def mask_logits(mask: npt.NDArray[np.bool_], size_hw: SizeHW) -> FloatMap:
    """A mask bool [H, W] as logits float32 at `size_hw`; half-covered cells have 0."""
    height, width = size_hw
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray((2 * shares - 1) * LOGIT_LIMIT, np.float32)


def working_size(frame_hw: SizeHW, long_side: int) -> SizeHW:
    """Working resolution of flow and masks: the frame's aspect, never larger than the frame."""
    scale = min(1.0, long_side / max(frame_hw))
    return max(1, round(frame_hw[0] * scale)), max(1, round(frame_hw[1] * scale))
