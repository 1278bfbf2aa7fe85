"""`bench stream`: the whole pipeline on a clip, compared with only decoding it.

Runs are interleaved, so that both have the same machine load. Objects are prompted with boxes on
the first frame: those that everything mode finds, then cells of a grid if they are too few.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline, RunSummary
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.prompts import BoxEvent, PromptLog
from maskstream.pipeline.runs.outputs import RunOutputs
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.tracking.seeding import Seeder
from maskstream.pipeline.types import Frame, SizeHW, Source

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class StreamRow:
    """Runs with one number of objects; medians over the runs.

    seconds: wall time without loading the model. times_decode: that time divided by the time to
    decode every frame to RGB, in the same turn. stage_ms: per frame. step_p50_ms, step_p95_ms: time
    between results outside keyframes, without output. peak_mb: peak resident memory so far.
    """

    objects: int
    frames: int
    keyframes: int
    seconds: float
    times_decode: float
    stage_ms: dict[str, float]
    step_p50_ms: float
    step_p95_ms: float
    peak_mb: float

    @property
    def fps(self) -> float:
        """Frames per second, end to end."""
        return self.frames / self.seconds


@dataclass(frozen=True, slots=True)
class StreamReport:
    """Rows by number of objects. decode_ms: median time to decode a frame to RGB."""

    clip: str
    size_hw: SizeHW
    model: str
    interval: int
    decode_ms: float
    rows: tuple[StreamRow, ...]

    @property
    def ms_per_object(self) -> float | None:
        """Cost of each further object per frame, ms; None with a single row."""
        if len(self.rows) < 2:
            return None
        counts = [row.objects for row in self.rows]
        times = [1000 * row.seconds / row.frames for row in self.rows]
        return float(np.polyfit(counts, times, 1)[0])

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        rows = [asdict(row) | {"fps": row.fps} for row in self.rows]
        return asdict(self) | {"rows": rows, "ms_per_object": self.ms_per_object}


def bench_stream(
    config: PipelineConfig, source: Source, objects: Sequence[int], *, turns: int = 3
) -> StreamReport:
    """Run with each number of objects `turns` times, each after a run that only decodes the clip.

    Seeding is off. Raises `SourceError`, `ModelError`.
    """
    pipeline = Pipeline(config.without_seeding())
    with source.open() as reader:
        info = reader.info
        first = next(iter(reader))
    boxes = find_boxes(pipeline, first, max(objects))
    decoding: list[float] = []
    rows = []
    for count in objects:
        log = _prompts(first.index, boxes[:count])
        runs: list[RunSummary] = []
        ratios = []
        for _ in range(turns):
            decoding.append(_decode_s(source))
            runs.append(_run(pipeline, source, log))
            ratios.append(_seconds(runs[-1]) / decoding[-1])
        rows.append(_row(count, runs, ratios, _steps_ms(pipeline, source, log)))
    return StreamReport(
        Path(info.name).name,
        info.size_hw,
        Path(config.model).name,
        config.keyframes.interval,
        1000 * median(decoding) / rows[0].frames,
        tuple(rows),
    )


def find_boxes(pipeline: Pipeline, frame: Frame, count: int) -> list[Box]:
    """Boxes xyxy of objects in a frame, best first, then cells of a grid if they are too few."""
    segmenter = open_segmenter(pipeline.config, pipeline.model, frame.size_hw)
    nothing = np.zeros(segmenter.geometry.grid_hw, np.bool_)
    seeder = Seeder(segmenter, pipeline.config.seeding)
    found = seeder.propose_after_cut(segmenter.encode(frame), nothing, count)
    scale = np.tile(segmenter.geometry.cell / np.array(segmenter.geometry.scale_xy), 2)
    masks = np.array([p.logits > 0 for p in found]).reshape(-1, *segmenter.geometry.grid_hw)
    boxes = [tuple(map(float, box)) for box in boxes_of(masks) * scale]
    height, width = frame.size_hw
    side = int(np.ceil(np.sqrt(count)))
    cell = np.array([width, height]) / side
    for index in range(count - len(boxes)):
        corner = np.array([index % side, index // side]) * cell
        boxes.append((*map(float, corner + 0.1 * cell), *map(float, corner + 0.9 * cell)))
    return [(x0, y0, min(x1, width), min(y1, height)) for x0, y0, x1, y1 in boxes]


def _prompts(frame: int, boxes: Sequence[Box]) -> PromptLog:
    events = tuple(
        BoxEvent(type="box", frame=frame, object=number, xyxy=box)
        for number, box in enumerate(boxes, 1)
    )
    return PromptLog(version=1, events=events)


def _decode_s(source: Source) -> float:
    """Seconds to decode every frame to RGB at full size."""
    begun = time.perf_counter()
    with source.open() as reader:
        for frame in reader:
            frame.rgb()
    return time.perf_counter() - begun


def _run(pipeline: Pipeline, source: Source, log: PromptLog) -> RunSummary:
    with tempfile.TemporaryDirectory(prefix="maskstream-bench-") as folder:
        outputs = RunOutputs(f"{folder}/out.zarr")
        return pipeline.run(source, lambda info: outputs.open(pipeline, info), log)


def _seconds(run: RunSummary) -> float:
    """Wall time without loading the model."""
    return run.seconds - run.stage_s.get("load", 0.0)


def _steps_ms(pipeline: Pipeline, source: Source, log: PromptLog) -> list[float]:
    """Times between results outside keyframes, without output and without refinement."""
    tracking = pipeline.config.tracking.model_copy(update={"refine": False})
    pipeline = Pipeline(pipeline.config.model_copy(update={"tracking": tracking}))
    steps = []
    last, keyframes = time.perf_counter(), 0
    for _ in pipeline.stream(source, log):
        now = time.perf_counter()
        if pipeline.summary.keyframes == keyframes:
            steps.append(1000 * (now - last))
        last, keyframes = now, pipeline.summary.keyframes
    return steps


def _row(
    objects: int, runs: Sequence[RunSummary], ratios: Sequence[float], steps: Sequence[float]
) -> StreamRow:
    frames = runs[0].frames
    stages = {
        name: round(1000 * median(run.stage_s[name] for run in runs) / frames, 2)
        for name in runs[0].stage_s
        if name != "load"
    }
    p50, p95 = np.percentile(steps or [0.0], (50, 95))
    return StreamRow(
        objects,
        frames,
        runs[0].keyframes,
        median(map(_seconds, runs)),
        median(ratios),
        stages,
        float(p50),
        float(p95),
        max(run.peak_memory_mb for run in runs),
    )
