"""Apply a person's prompts on a keyframe: clicks, boxes and masks become masks of tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.predictor import single_prompt
from maskstream.pipeline.prompts import BoxEvent, Event, MaskEvent, PointEvent
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter, best_of_three
from maskstream.pipeline.tracking.steps import mask_logits
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.track import Track, box_of
from maskstream.trackers.tracker import Tracker


def apply_events(
    tracker: Tracker,
    segmenter: Segmenter,
    features: Callable[[], Features],
    events: Sequence[Event],
    *,
    frame_hw: SizeHW,
    working_hw: SizeHW,
    now_s: float,
) -> dict[int, PromptError]:
    """Apply the events of one frame; returns the errors of prompts that cannot be decoded, by id.

    features: of the frame, called if there are points or boxes.

    Points and a box of one object are one prompt. A mask is used directly; points and boxes given
    with it refine it.
    """
    prompted: dict[int, list[PointEvent | BoxEvent]] = {}
    for event in events:
        if isinstance(event, PointEvent | BoxEvent):
            prompted.setdefault(event.object, []).append(event)
            continue
        prompted.pop(event.object, None)
        if isinstance(event, MaskEvent):
            tracker.set(event.object, mask_logits(event.mask, working_hw), 1.0, now_s)
        else:
            tracker.remove(event.object)
    refused: dict[int, PromptError] = {}
    for object_id, given in prompted.items():
        try:
            logits, score = decode_events(
                segmenter, features(), given, tracker.find(object_id), frame_hw
            )
        except PromptError as error:
            refused[object_id] = error
            continue
        tracker.set(object_id, segmenter.geometry.to_size(logits, working_hw), score, now_s)
    return refused


def decode_events(
    segmenter: Segmenter,
    features: Features,
    events: Sequence[PointEvent | BoxEvent],
    track: Track | None,
    frame_hw: SizeHW,
) -> tuple[FloatMap, float]:
    """Low-resolution logits and predicted IoU of one object's points and box.

    The mask of a visible track is part of the prompt, or its box if the model takes no masks and
    no box is given. Raises `PromptError`.
    """
    points = [e for e in events if isinstance(e, PointEvent)]
    boxes = [e for e in events if isinstance(e, BoxEvent)]
    known = track is not None and track.visible and track.mask.any()
    if not boxes and not known and not any(p.label for p in points):
        raise PromptError(
            f"object {events[0].object} has only negative points on frame {events[0].frame}: "
            "give a positive point or a box first"
        )
    box = boxes[-1].xyxy if boxes else None
    takes_masks = segmenter.card.mask_prompts
    if known and track is not None and box is None and not takes_masks:
        box = _box_around(track, points, frame_hw)
    prompt = single_prompt(
        frame_hw, [p.xy for p in points] or None, [p.label for p in points] or None, box
    )
    if known and track is not None and takes_masks:
        mask = segmenter.geometry.from_size(track.logits)[None, None]
        prompt = PromptBatch(prompt.xy, prompt.labels, mask)
    decoded = segmenter.decode(features, prompt)
    ambiguous = len(points) == 1 and not boxes and not known
    index = int(best_of_three(decoded)[0]) if ambiguous else 0
    return decoded.masks[0, index], float(decoded.iou[0, index])


def _box_around(
    track: Track, points: Sequence[PointEvent], frame_hw: SizeHW
) -> tuple[float, float, float, float]:
    """Box xyxy, displayed pixels, of a track's mask and of the positive points."""
    box = box_of(track.mask)
    assert box is not None  # noqa: S101 - the caller looks for a mask
    scale = np.array(frame_hw[::-1]) / np.array(track.logits.shape[::-1])
    corners = box.reshape(2, 2) * scale
    positive = np.array([p.xy for p in points if p.label]).reshape(-1, 2)
    x0, y0 = np.minimum(corners[0], positive.min(0, initial=np.inf))
    x1, y1 = np.maximum(corners[1], positive.max(0, initial=-np.inf) + 1)
    return float(x0), float(y0), float(x1), float(y1)
