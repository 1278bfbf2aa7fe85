"""Remove objects from a frame's result or add one, leaving the others unchanged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.tracking.compositor import covered_part
from maskstream.pipeline.types import FrameResult, LabelMap, ObjectResult
from maskstream.trackers.state import TrackState

BoolMap = npt.NDArray[np.bool_]

_WHOLE = (slice(0, None), slice(0, None))


def prompted_object(object_id: int, mask: BoolMap, score: float) -> ObjectResult:
    """Result of an object whose mask, bool [H, W] and not empty, a person gave."""
    x0, y0, x1, y1 = (float(v) for v in boxes_of(mask[None])[0])
    return ObjectResult(object_id, (x0, y0, x1, y1), score, TrackState.TRACKED, int(mask.sum()))


def keep_objects(result: FrameResult, kept: Collection[int]) -> FrameResult:
    """Keep only these objects of a result; their parts that removed objects covered are shown.

    Their whole masks (`FrameResult.mask`) stay as they are.
    """
    if all(found.id in kept for found in result.objects):
        return result
    objects = [found for found in result.objects if found.id in kept]
    labels = np.where(np.isin(result.labels, list(kept)), result.labels, 0).astype(np.uint16)
    masks = {found.id: result.mask(found.id) for found in objects}
    for found in sorted(objects, key=lambda o: -o.score):
        labels[masks[found.id] & (labels == 0)] = found.id
    return _result(result, labels, objects, masks)


def add_object(result: FrameResult, found: ObjectResult, mask: BoolMap) -> FrameResult:
    """Add an object to a result, given its whole mask bool [H, W].

    Where it overlaps another one, the one with the higher score is on top.
    """
    weaker = [o.id for o in result.objects if o.score < found.score]
    shows = mask & ((result.labels == 0) | np.isin(result.labels, weaker))
    labels = result.labels.copy()
    labels[shows] = found.id
    masks = {o.id: result.mask(o.id) for o in result.objects} | {found.id: mask}
    return _result(result, labels, [*result.objects, found], masks)


def stack_objects(result: FrameResult, bottom_up: Sequence[int]) -> FrameResult:
    """Order where objects overlap: the last of these ids is on top. Whole masks stay as they are.

    bottom_up: ids of all objects of the result.
    """
    masks = {object_id: result.mask(object_id) for object_id in bottom_up}
    labels = np.zeros_like(result.labels)
    for object_id, mask in masks.items():
        labels[mask] = object_id
    return _result(result, labels, result.objects, masks)


def _result(
    result: FrameResult,
    labels: LabelMap,
    objects: Sequence[ObjectResult],
    masks: Mapping[int, BoolMap],
) -> FrameResult:
    """Recompute areas and covered parts from the label map and the whole masks."""
    counted, covered = [], []
    for found in sorted(objects, key=lambda o: o.id):
        shown = labels == found.id
        counted.append(replace(found, area=int(shown.sum())))
        under = masks[found.id] & ~shown
        if under.any():
            covered.append(covered_part(found.id, _WHOLE, under))
    return replace(result, labels=labels, objects=tuple(counted), covered=tuple(covered))
