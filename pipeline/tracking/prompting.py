"""Apply a person's prompts on a keyframe: clicks, boxes and masks become masks of tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.predictor import single_prompt
from maskstream.pipeline.prompts import BoxEvent, Event, MaskEvent, PointEvent
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter, best_of_three
from maskstream.pipeline.tracking.steps import mask_logits
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.track import Track
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

    The mask of a visible track is part of the prompt. Raises `PromptError`.
    """
    points = [e for e in events if isinstance(e, PointEvent)]
    boxes = [e for e in events if isinstance(e, BoxEvent)]
    known = track is not None and track.visible and track.mask.any()
    if not boxes and not known and not any(p.label for p in points):
        raise PromptError(
            f"object {events[0].object} has only negative points on frame {events[0].frame}: "
            "give a positive point or a box first"
        )
    prompt = single_prompt(
        frame_hw,
        [p.xy for p in points] or None,
        [p.label for p in points] or None,
        boxes[-1].xyxy if boxes else None,
    )
    if known and track is not None:
        mask = segmenter.geometry.from_size(track.logits)[None, None]
        prompt = PromptBatch(prompt.xy, prompt.labels, mask)
    decoded = segmenter.decode(features, prompt)
    ambiguous = len(points) == 1 and not boxes and not known
    index = int(best_of_three(decoded)[0]) if ambiguous else 0
    return decoded.masks[0, index], float(decoded.iou[0, index])
