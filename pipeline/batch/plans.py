"""The plan of a video in parts, kept beside their stores, so that a video is cut once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from maskstream.pipeline.batch.staging import Staged
from maskstream.pipeline.batch.tasks import BatchJob, Task
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.runs.parts import Part, parts_of
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store.open_place import open_place

_NAME = "plan.json"


def kept_plan(job: BatchJob, task: Task, staged: Staged, config: PipelineConfig) -> list[Part]:
    """The parts of a video, as they were planned before or else by reading it.

    A plan of another video, range or setting is made anew. Raises `SourceError`, `StoreError`.
    """
    place = open_place(job.parts_of(task))
    wanted: dict[str, Any] = {
        "identity": identity_of(task.source) if staged.origin is None else staged.origin.identity,
        "range": [task.start, task.end],
        "part_min_s": job.part_min_s,
        "cut_residual": config.keyframes.cut_residual,
        "flow_long_side": config.tracking.flow_long_side,
    }
    with suppress(OSError, ValueError, KeyError):
        kept = json.loads(place.read(_NAME))
        if kept["of"] == wanted:
            return [(int(first), int(end)) for first, end in kept["parts"]]
    threads = config.threads.inference  # nothing else is at work
    source = open_source(staged.path, start=task.start, end=task.end, threads=threads)
    parts = parts_of(source, config, job.part_min_s)
    if len(parts) > 1:
        try:
            place.replace(_NAME, json.dumps({"of": wanted, "parts": parts}).encode())
        except OSError as error:
            raise StoreError(
                f"The plan {place.name}/{_NAME} cannot be written: {error.strerror or error}."
            ) from error
    return parts
