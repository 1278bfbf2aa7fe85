"""Join the stores of a video's parts into one store, like that of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.runs.identities import Identities
from maskstream.pipeline.runs.outputs import RunOutputs
from maskstream.pipeline.runs.resume import JUMP
from maskstream.pipeline.sources.seekable import Seekable
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import CoveredPart, FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState


def join_parts(
    outputs: RunOutputs,
    pipeline: Pipeline,
    info: SourceInfo,
    video: Seekable,
    parts: Sequence[MaskStore],
) -> None:
    """Write the store of `outputs` from the complete stores of a video's parts, in order.

    info: of the range that the parts make up. video: the whole one, to compare objects. A store
    that was begun is completed. Objects that a part shares with earlier ones have the same id, and
    reenter where they are first seen again; events and review items are as in one run.

    Raises `StoreError`, `SourceError`; what was committed is kept.
    """
    sink = outputs.open_store(pipeline, info)
    complete = False
    try:
        identities = Identities(pipeline.config, pipeline.networks(info.size_hw), video)
        known: set[int] = set()
        for part in parts:
            jumps = [event for event in part.events if event.get("type") == JUMP]
            ids = identities.of_part(part)
            for result in _renumbered(part, ids, known & {*ids.values()}):
                for event in jumps:
                    if event["frame"] == result.index:
                        sink.note(event)
                sink.append(result)
            known.update(ids.values())
        complete = True
    finally:
        sink.close(complete=complete)


def _renumbered(part: MaskStore, ids: Mapping[int, int], known: set[int]) -> Iterator[FrameResult]:
    """The frames of a part with other ids; of `known` ones it is said where they reenter."""
    waiting = set(known)
    table = np.zeros(1 + max(ids, default=0), np.uint16)
    table[list(ids)] = list(ids.values())
    for result in part:
        found = [replace(o, id=ids[o.id]) for o in result.objects]
        shown = {o.id for o in found if o.area}
        objects = [_reentered(o) if o.id in waiting & shown else o for o in found]
        waiting -= shown
        covered = [_renamed(c, ids[c.object_id]) for c in result.covered]
        yield replace(
            result,
            labels=table[result.labels],
            objects=tuple(sorted(objects, key=lambda o: o.id)),
            covered=tuple(sorted(covered, key=lambda c: c.object_id)),
        )


def _reentered(seen: ObjectResult) -> ObjectResult:
    return replace(seen, state=TrackState.REENTERED)


def _renamed(part: CoveredPart, object_id: int) -> CoveredPart:
    return replace(part, object_id=object_id)
