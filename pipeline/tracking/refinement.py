"""Refinement of files: blend masks between two keyframes from both of them.

Propagated masks drift with every frame until the next keyframe corrects them. Frames are held until
that keyframe; its masks are propagated back to them, and the nearer keyframe has more weight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.types import Frame
from maskstream.trackers.flow import Flow
from maskstream.trackers.iou import mask_iou
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import FloatMap, Track

MAX_HELD_FRAMES = 12
"""Maximum of frames held for a keyframe; beyond it, the oldest keep their propagated masks."""

_SAME_MOTION_IOU = 0.8  # IoU of two masks from which they share a rigid motion


def check_refinable(config: PipelineConfig) -> None:
    """Raise `ConfigError` if refinement is on although the queue may drop frames (live)."""
    if config.refines and config.queue.policy != "wait":
        raise ConfigError(
            "tracking.refine (--refine) holds frames back until the next keyframe, which "
            f"queue.policy: {config.queue.policy} does not allow; set queue.policy to wait, or "
            "leave refining out"
        )


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame and its tracks, which are not changed any more.

    flow: from the previous frame; None on the first frame and after a cut.
    """

    frame: Frame
    keyframe: bool
    flow: Flow | None
    tracks: Sequence[Track]


class Refiner:
    """Holds frames until the next keyframe, at most `MAX_HELD_FRAMES` of them."""

    def __init__(self) -> None:
        self._held: deque[TrackedFrame] = deque()

    def put(self, tracked: TrackedFrame) -> list[TrackedFrame]:
        """Add the next frame; returns the frames that are complete, in order."""
        if tracked.keyframe:
            return [*blend_between_keyframes(self.rest(), tracked), tracked]
        self._held.append(tracked)
        return [self._held.popleft()] if len(self._held) > MAX_HELD_FRAMES else []

    def rest(self) -> list[TrackedFrame]:
        """Release the frames that are still held, unchanged."""
        rest = list(self._held)
        self._held.clear()
        return rest


def blend_between_keyframes(
    between: Sequence[TrackedFrame], keyframe: TrackedFrame
) -> list[TrackedFrame]:
    """Blend the tracks of successive frames with those of the keyframe that follows them.

    The keyframe's weight grows linearly. Objects that are not visible on the keyframe are
    unchanged, and so is everything before a cut. An object that was occluded and is found again on
    the keyframe is shown (`REENTERED`) as far back as its mask can be propagated; otherwise ids,
    states, scores and expected boxes are kept.
    """
    propagated = {t.id: t.logits for t in keyframe.tracks if t.id > 0 and t.visible}
    done: list[TrackedFrame] = []
    later = keyframe
    for place in range(len(between), 0, -1):
        now = between[place - 1]
        propagated = _propagate_back(propagated, later)
        share = place / (len(between) + 1)
        tracks = [_blend(t, propagated.get(t.id), share) for t in now.tracks]
        done.append(replace(now, tracks=tracks))
        later = now
    return done[::-1]


def _propagate_back(masks: Mapping[int, FloatMap], later: TrackedFrame) -> dict[int, FloatMap]:
    """Propagate logits, by object id, from a frame to the previous one."""
    if later.flow is None:
        return {}
    flow = later.flow.reverse()
    came = {
        t.id: np.asarray(cv2.invertAffineTransform(t.rigid_motion), np.float64)
        for t in later.tracks
        if t.rigid_motion is not None
        and t.id in masks
        and mask_iou(t.mask, masks[t.id] > 0) >= _SAME_MOTION_IOU
    }
    known = {
        i: flow.propagate_rigid(logits, came[i]).logits for i, logits in masks.items() if i in came
    }
    others = [i for i in masks if i not in came]
    found = flow.propagate([masks[i] for i in others])
    return known | {i: seen.logits for i, seen in zip(others, found, strict=True)}


def _blend(track: Track, later: FloatMap | None, share: float) -> Track:
    """Blend a track with its later logits [H, W], whose weight is `share`."""
    if later is None:
        return track
    if track.visible:
        blend = cv2.addWeighted(track.logits, 1 - share, later, share, 0)
        return replace(track, logits=np.asarray(blend, np.float32))
    if not (later > 0).any():
        return track
    return replace(track, logits=later, state=TrackState.REENTERED)
