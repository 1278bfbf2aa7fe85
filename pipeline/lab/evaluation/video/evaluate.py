"""Runs the pipeline and the baselines on clips with ground-truth masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.evaluation.clicks import first_clicks
from maskstream.pipeline.lab.evaluation.video.ablation import AblatedMemory, Part
from maskstream.pipeline.lab.evaluation.video.baselines import MakeBaseline
from maskstream.pipeline.lab.evaluation.video.clips import (
    BoolMap,
    ClipEntry,
    SequenceTask,
    set_task,
)
from maskstream.pipeline.lab.evaluation.video.predictions import (
    Answers,
    Effort,
    KeptLabels,
    ObjectScores,
    score_identities_of,
    score_objects,
)
from maskstream.pipeline.lab.evaluation.video.report import (
    Row,
    SeededReport,
    SeededSequence,
    SequenceReport,
    VideoReport,
    sequence_row,
)
from maskstream.pipeline.lab.evaluation.video.sheets import write_clip_sheet
from maskstream.pipeline.lab.peak_memory import PeakMemory
from maskstream.pipeline.models.find import MEMORY
from maskstream.pipeline.prompts import NO_PROMPTS, PromptLog
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.types import Frame

PromptKind = Literal["mask", "box", "click"]
OnRun = Callable[[str], None]


def evaluate_videos(
    config: PipelineConfig,
    clips: Sequence[ClipEntry],
    *,
    prompt: PromptKind = "mask",
    baselines: Mapping[str, MakeBaseline],
    without_masks: Sequence[str] = (),
    ablate: Collection[Part] = (),
    sheets: Path | None = None,
    on_run: OnRun = lambda _: None,
) -> VideoReport:
    """Prompt every object on its first annotated frame and score the annotated frames after it.

    Seeding is off, whatever `config` says. prompt: how objects are prompted in the pipeline;
    baselines always get masks. without_masks: names to report as skipped; clips on which no object
    can be scored are added to them. ablate: parts that the memory is without. sheets: folder for a
    contact sheet of each clip. on_run: called with the name of a run before it starts, `1 +
    len(baselines)` times per clip.

    Raises:
        SourceError: a clip or its masks cannot be read, or no object of any clip can be scored.
        ModelError: the model cannot be opened.
        StoreError: a contact sheet cannot be written.
    """
    pipeline = Pipeline(_with_seeding(config, enabled=False))
    threads = config.threads.inference
    memory = AblatedMemory(MEMORY, ablate, threads=threads) if ablate else None
    sequences: list[SequenceReport] = []
    skipped = list(without_masks)
    for entry in clips:
        task = set_task(entry.name, entry.load())
        if not task.objects:
            skipped.append(entry.name)
            continue
        on_run(entry.name)
        wanted = task.scored.keys()
        if memory is not None:
            pipeline.networks(task.size_hw, memory=memory)
        ours = follow(pipeline, entry.name, task, prompts_for(task, prompt), wanted)
        objects = score_objects(task, ours.labels)
        if sheets is not None:
            write_clip_sheet(sheets / f"{entry.name}.png", task, ours.labels)
        rows = {}
        for name, make in baselines.items():
            on_run(f"{entry.name}, {name}")
            answers = follow_baseline(pipeline, make, task)
            rows[name] = _row(task, score_objects(task, answers.labels), answers)
        sequences.append(SequenceReport(entry.name, _row(task, objects, ours), objects, rows))
    if not sequences:
        raise UnreadableSourceError("none of the videos has an object that can be scored")
    return VideoReport(prompt, tuple(sequences), tuple(skipped))


def evaluate_seeded(
    config: PipelineConfig,
    clips: Sequence[ClipEntry],
    *,
    without_masks: Sequence[str] = (),
    on_run: OnRun = lambda _: None,
) -> SeededReport:
    """Let the pipeline find the objects itself and score detection and association (HOTA).

    Objects that are not annotated count as false positives, so the scores are absolute only for
    fully annotated clips. Raises `SourceError`, `ModelError`.
    """
    pipeline = Pipeline(_with_seeding(config, enabled=True))
    sequences: list[SeededSequence] = []
    skipped = list(without_masks)
    for entry in clips:
        task = set_task(entry.name, entry.load())
        if not task.given:
            skipped.append(entry.name)
            continue
        on_run(entry.name)
        frames = task.clip.truth.frames
        answers = follow(pipeline, entry.name, task, NO_PROMPTS, frames)
        scores = score_identities_of(task, answers.labels, frames)
        sequences.append(SeededSequence(entry.name, scores, answers.effort))
    if not sequences:
        raise UnreadableSourceError("none of the videos has an object that can be scored")
    return SeededReport(tuple(sequences), tuple(skipped))


def _row(task: SequenceTask, objects: Mapping[int, ObjectScores], answers: Answers) -> Row:
    switches = score_identities_of(task, answers.labels, task.scored).switches
    return sequence_row(objects, switches, answers.effort)


def follow(
    pipeline: Pipeline, name: str, task: SequenceTask, prompts: PromptLog, wanted: Collection[int]
) -> Answers:
    """Run the pipeline and keep its label maps of the `wanted` frames. Raises `SourceError`."""
    kept = KeptLabels(wanted)
    memory = PeakMemory()
    for result in pipeline.stream(task.clip.source, prompts):
        kept.put(result.index, result.labels)
    summary = pipeline.summary
    task.check_frames(name, summary.frames)
    missing = [frame for frame in wanted if frame not in kept]
    if missing:
        raise UnreadableSourceError(f"{name} has masks for frame {missing[0]}, but no such frame")
    seconds = summary.seconds - summary.stage_s.get("load", 0.0)
    return Answers(kept, Effort(summary.frames, seconds, memory.read_mb()))


def follow_baseline(pipeline: Pipeline, make: MakeBaseline, task: SequenceTask) -> Answers:
    """Run a baseline with the pipeline's configuration and keep its label maps."""
    kept = KeptLabels(task.scored.keys())
    memory = PeakMemory()
    cv2.setNumThreads(pipeline.config.threads.opencv)
    baseline = make(pipeline.config, pipeline.model, task.size_hw)
    begun, count = time.perf_counter(), 0
    with task.clip.source.open() as reader:
        for frame in reader:
            kept.put(frame.index, baseline.step(_of_size(frame, task)))
            if frame.index in task.given:
                baseline.start(frame, task.given[frame.index])
            count += 1
    return Answers(kept, Effort(count, time.perf_counter() - begun, memory.read_mb()))


def prompts_for(task: SequenceTask, kind: PromptKind) -> PromptLog:
    """The events that prompt every object of a task; a click is at the center of the object."""
    events = [
        {"frame": frame, "object": number, "type": _TYPES[kind], **_PROMPTS[kind](mask)}
        for frame, masks in task.given.items()
        for number, mask in masks.items()
    ]
    return PromptLog.model_validate({"version": 1, "events": events})


def _mask(mask: BoolMap) -> dict[str, Any]:
    return {"mask": mask}


def _box(mask: BoolMap) -> dict[str, Any]:
    return {"xyxy": boxes_of(mask[None])[0].tolist()}


def _click(mask: BoolMap) -> dict[str, Any]:
    return {"xy": first_clicks(mask[None]).xy[0, 0].tolist()}


_TYPES: Mapping[PromptKind, str] = {"mask": "mask", "box": "box", "click": "point"}
_PROMPTS: Mapping[PromptKind, Callable[[BoolMap], dict[str, Any]]] = {
    "mask": _mask,
    "box": _box,
    "click": _click,
}


def _of_size(frame: Frame, task: SequenceTask) -> Frame:
    """The frame scaled to the size of the first one, as in the pipeline."""
    if frame.size_hw == task.size_hw:
        return frame
    return Frame(frame.index, frame.pts, frame.time_base, task.size_hw, frame.view)


def _with_seeding(config: PipelineConfig, *, enabled: bool) -> PipelineConfig:
    seeding = config.seeding.model_copy(update={"enabled": enabled})
    return config.model_copy(update={"seeding": seeding})
