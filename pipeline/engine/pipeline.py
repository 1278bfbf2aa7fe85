"""The pipeline of a run: reader thread, queue, segmentation and tracking, writer thread.

The first exception in any thread stops all of them; sinks are closed and keep what was written.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2

from maskstream.pipeline.config import PipelineConfig, load_config
from maskstream.pipeline.detectors.detector import Detector, FunctionDetector, NamedFrames
from maskstream.pipeline.detectors.open import choose, open_detector
from maskstream.pipeline.engine.backward import (
    BackwardPass,
    BackwardTracks,
    first_prompts,
    reversed_in_time,
)
from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.engine.reader import SourceReader
from maskstream.pipeline.engine.writer import SinkWriter
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.memory.model import MemoryModel
from maskstream.pipeline.models.networks import Networks, open_networks
from maskstream.pipeline.models.open import locate_model
from maskstream.pipeline.prompts import NO_PROMPTS, PromptLog
from maskstream.pipeline.sources.known_frames import known_frames
from maskstream.pipeline.sources.reverse import check_reversible, reverse
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.processor import FrameProcessor
from maskstream.pipeline.tracking.refinement import check_refinable
from maskstream.pipeline.types import (
    Frame,
    FrameResult,
    Sink,
    SizeHW,
    Source,
    SourceInfo,
    SourceReport,
)


class Processor(Protocol):
    """Turns the frames of one stream into results; files and live runs have different ones."""

    times: StageTimes
    keyframes: int

    def results(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FrameResult]]:
        """Yield results in frame order."""
        ...

    def running(self) -> Mapping[str, float]:
        """Time since each stage in progress began, seconds; thread-safe."""
        ...

    def close(self) -> None:
        """Stop the threads."""
        ...


MakeProcessor = Callable[[PipelineConfig, Path, SizeHW], Processor]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RunSummary:
    """Counts and times of a run.

    seconds: wall time from the start to the last frame written. stage_s: seconds in each stage,
    summed over frames (stages of different threads overlap).
    """

    frames: int = 0
    keyframes: int = 0
    objects: int = 0
    dropped: int = 0
    seconds: float = 0.0
    stage_s: dict[str, float] = field(default_factory=dict)
    report: SourceReport = field(default_factory=SourceReport)

    @property
    def fps(self) -> float:
        """Frames a second, end to end."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def peak_memory_mb(self) -> float:
        """Peak resident memory of this process, MiB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


class Pipeline:
    """Segments and tracks objects in a video, frame by frame.

    >>> pipeline = Pipeline.from_config()                             # doctest: +SKIP
    >>> for result in pipeline.stream(open_source("clip.mp4")):       # doctest: +SKIP
    ...     print(result.index, [o.id for o in result.objects])
    """

    def __init__(
        self, config: PipelineConfig, detector: Detector | Callable[..., Any] | None = None
    ) -> None:
        """Raises `ConfigError`, `ModelError`, `DetectorError`.

        detector: instead of a configured one: a `Detector`, or a function of an RGB image, uint8
        [H, W, 3], that returns `DetectedBox`es.
        """
        check_refinable(config)
        self.config = config
        self.model = locate_model(config)
        self.detector = _detector_for(config, detector)
        self.summary = RunSummary()
        self._running_stages: list[Callable[[], Mapping[str, float]]] = []
        self._stopped = False
        self._reader: SourceReader | None = None
        self._writer: SinkWriter | None = None
        self._idle: dict[SizeHW, Networks] = {}  # of the previous stream; loading takes seconds

    @classmethod
    def from_config(cls, file: Path | str | None = None, overrides: Sequence[str] = ()) -> Pipeline:
        """Build from a YAML file and `section.key=value` overrides. Raises `ConfigError`."""
        return cls(load_config(None if file is None else Path(file), overrides))

    def stream(
        self,
        source: Source,
        prompts: PromptLog = NO_PROMPTS,
        *,
        on_open: Callable[[SourceInfo], None] | None = None,
        backward: BackwardPass | None = None,
    ) -> Generator[FrameResult, None, None]:
        """Yield one result per frame; closing the generator early stops the reader.

        backward: first track objects backward from their first prompt, which reads the source twice
        more, and add these tracks to the results.

        Raises `SourceError`, `PromptError`, `ModelError`; with `backward` also `StoreError`.
        """
        with closing(self._frames(source, prompts, on_open, backward)) as frames:
            for _, result in frames:
                yield result

    def run(
        self,
        source: Source,
        make_sinks: Callable[[SourceInfo], Sequence[Sink]],
        prompts: PromptLog = NO_PROMPTS,
        *,
        on_frame: Callable[[FrameResult], None] | None = None,
        backward: BackwardPass | None = None,
        make_processor: MakeProcessor | None = None,
        reader_end_s: float = 30.0,
    ) -> RunSummary:
        """Process the whole source and write every result to the sinks of `make_sinks`.

        `backward` is as in `stream`. make_processor: replaces the one for files
        (`maskstream.pipeline.live`). reader_end_s: how long the end waits for the source. Sinks are
        always closed. Also raises errors of the sinks (`StoreError`, `SinkHangsError`).
        """
        sinks: list[Sink] = []
        writer = self._writer = SinkWriter(sinks)
        complete = False
        started = time.perf_counter()
        try:
            results = self._frames(
                source,
                prompts,
                lambda info: sinks.extend(make_sinks(info)),
                backward,
                make_processor,
                reader_end_s,
            )
            self._running_stages.append(writer.times.running)
            with closing(results):
                for frame, result in results:
                    writer.put(frame, result)
                    if on_frame is not None:
                        on_frame(result)
            complete = True
        finally:
            writer.finish(complete=complete)
            self.summary.stage_s |= writer.times.seconds
            self.summary.seconds = time.perf_counter() - started
        return self.summary

    def stop(self, close_s: float) -> None:
        """End the run after the frames that were read, and any later run; thread-safe.

        It waits for no source that is silent, and for no sink that takes longer than `close_s`.
        """
        self._stopped = True
        if self._writer is not None:
            self._writer.abandon_after(close_s)
        if self._reader is not None:
            self._reader.end()

    @property
    def source_abandoned(self) -> bool:
        """Whether the thread that reads the source was left behind, because it waits for it."""
        return self._reader is not None and self._reader.abandoned

    def networks(self, size_hw: SizeHW, *, memory: MemoryModel | None = None) -> Networks:
        """The networks for frames of a size, for use while nothing is run. Raises `ModelError`.

        The next stream of that size runs with them. memory: instead of the embedded one, if they
        are not open yet.
        """
        if size_hw not in self._idle:
            self._idle = {size_hw: open_networks(self.config, self.model, size_hw, memory=memory)}
        return self._idle[size_hw]

    def running(self) -> dict[str, float]:
        """Time since each stage in progress began, seconds; thread-safe."""
        running: dict[str, float] = {}
        for stages in self._running_stages.copy():
            running |= stages()
        return running

    def _frames(
        self,
        source: Source,
        prompts: PromptLog,
        on_open: Callable[[SourceInfo], None] | None,
        backward: BackwardPass | None,
        make_processor: MakeProcessor | None = None,
        reader_end_s: float = 30.0,
    ) -> Generator[tuple[Frame, FrameResult], None, None]:
        config = self.config
        cv2.setNumThreads(config.threads.opencv)
        self.summary = summary = RunSummary()
        if backward is not None:
            check_reversible(source)
        queue: FrameQueue[Frame] = FrameQueue(
            config.queue.capacity,
            Policy(config.queue.policy),
            carry=lambda dropped, after: after.after(dropped),
        )
        reader = self._reader = SourceReader(source, queue, reader_end_s)
        if self._stopped:
            reader.end()
        self._running_stages.append(reader.times.running)
        waiting = set(prompts.frames)
        processor: Processor | None = None
        started = time.perf_counter()
        earlier = BackwardTracks(None if backward is None else backward.scratch)
        try:
            info = reader.start()
            if info is None:  # it was stopped before the source gave anything
                reader.check_ended()
                return
            if waiting:
                prompts.check_frames(known_frames(source, info, max(waiting)))
            prompts.check_inside(info.size_hw)
            if self.detector is not None:
                self.detector.check(info.size_hw)
            if make_processor is None:
                processor = FrameProcessor(
                    config,
                    self.model,
                    info.size_hw,
                    prompts,
                    earlier.at,
                    networks=self._idle.pop(info.size_hw, None),
                    detector=self.detector,
                )
            else:
                processor = make_processor(config, self.model, info.size_hw)
            self._running_stages.append(processor.running)
            if on_open is not None:
                on_open(info)
            if backward is not None:
                self._backward_pass(source, prompts, info.size_hw, backward, earlier)
                summary.stage_s["backward"] = time.perf_counter() - started
            seen: set[int] = set()
            named = NamedFrames(self.detector)
            before: int | None = None
            for frame, result in processor.results(queue):
                waiting.discard(frame.index)
                seen.update(o.id for o in result.objects)
                named.passed(frame)
                summary.frames += 1
                summary.objects = len(seen)
                summary.keyframes = processor.keyframes
                summary.dropped = queue.dropped
                summary.report = reader.report
                summary.stage_s |= processor.times.seconds
                yield frame, result
                if queue.policy is Policy.WAIT and _is_passed(waiting, before, frame.index):
                    break
                before = frame.index
        finally:
            reader.stop()
            if processor is not None:
                processor.close()
                if isinstance(processor, FrameProcessor) and info is not None:
                    self._idle = {info.size_hw: processor.networks}
            earlier.close()
            self._running_stages.clear()
            summary.report = reader.report
            summary.dropped = queue.dropped
            summary.stage_s |= reader.times.seconds
            summary.seconds = time.perf_counter() - started
        named.check()
        if named.note:
            summary.report.notes.append(named.note)
        if waiting:
            raise PromptError(
                f"prompts name frame {min(waiting)}, which is not in the clip (or in the chosen "
                f"range); the run stopped after {summary.frames} frames"
            )

    def _backward_pass(
        self,
        source: Source,
        prompts: PromptLog,
        size_hw: SizeHW,
        backward: BackwardPass,
        earlier: BackwardTracks,
    ) -> None:
        """Track every object from its first prompt back to the first frame, into `earlier`."""
        wanted = first_prompts(prompts)
        if not wanted.events:
            return
        given = {e.object: e.frame for e in wanted.events}
        waiting = set(wanted.frames)
        config = self.config.without_seeding()
        queue: FrameQueue[Frame] = FrameQueue(config.queue.capacity)
        reader = SourceReader(reverse(source, max(waiting)), queue)
        processor = FrameProcessor(config, self.model, size_hw, wanted)
        try:
            info = reader.start()
            if backward.on_open is not None and info is not None:
                backward.on_open(info)
            for frame, result in processor.results(reversed_in_time(queue)):
                waiting.discard(frame.index)
                earlier.add(frame.index, [t for t in processor.tracks if frame.index < given[t.id]])
                if backward.on_frame is not None:
                    backward.on_frame(result)
        finally:
            reader.stop()
            processor.close()
        if waiting:
            raise PromptError(
                f"prompts name frame {min(waiting)}, which is not in the clip (or in the chosen "
                "range), so nothing can be tracked backward from there"
            )


def _detector_for(
    config: PipelineConfig, given: Detector | Callable[..., Any] | None
) -> Detector | None:
    if given is None:
        return open_detector(config.detector, threads=config.threads.inference)
    detector = given if isinstance(given, Detector) else FunctionDetector(given)
    return choose(detector, config.detector)


def _is_passed(waiting: Collection[int], before: int | None, index: int) -> bool:
    """Whether a run that goes from frame `before` to `index` has left out a frame for good."""
    if not waiting or before is None:
        return False
    return min(waiting) < index if before < index else max(waiting) > index
