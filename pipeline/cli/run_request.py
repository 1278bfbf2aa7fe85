"""Execution of the command `run`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from maskstream.pipeline.cli.detector_options import NO_DETECTOR, DetectorOptions
from maskstream.pipeline.cli.model_options import NO_MODEL_OPTIONS, ModelOptions
from maskstream.pipeline.cli.report import print_summary, progress_bar, summary_json
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.pipeline.engine.pipeline import Pipeline, RunSummary
    from maskstream.pipeline.prompts import PromptLog
    from maskstream.pipeline.runs.outputs import RunOutputs
    from maskstream.pipeline.store import StoreMode
    from maskstream.pipeline.types import Sink, Source, SourceInfo

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Options of the command `run`; None: as configured.

    output: path or URL of a mask store. prompts: a prompts JSON; it and a detector disable seeding
    unless `seed` is set. start, end: frame indices or times. fps: of
    images, frames per second, `24` or `24000/1001`. mode: what to do with an existing store.
    """

    source: str
    output: str
    mode: StoreMode = "create"
    config: Path | None = None
    overrides: Sequence[str] = ()
    model: ModelOptions = NO_MODEL_OPTIONS
    prompts: Path | None = None
    seed: bool | None = None
    detector: DetectorOptions = NO_DETECTOR
    overlay: Path | None = None
    contact: Path | None = None
    start: str | None = None
    end: str | None = None
    stride: int = 1
    backward: bool = False
    refine: bool | None = None
    fps: str | None = None
    deinterlace: bool = False
    as_json: bool = False
    quiet: bool = False

    @property
    def settings(self) -> list[str]:
        """Configuration overrides, `key=value`."""
        settings = [*self.overrides, *self.detector.settings, *self.model.settings]
        given = self.prompts is not None or self.detector.given
        if self.seed is not None or given:
            settings.append(f"seeding.enabled={str(bool(self.seed)).lower()}")
        if self.refine is not None:
            settings.append(f"tracking.refine={str(self.refine).lower()}")
        return settings

    @property
    def inputs(self) -> list[str | Path | None]:
        """Everything that is read, which no output may replace."""
        return [self.source, self.prompts, self.config, *self.detector.inputs]

    @property
    def is_partial(self) -> bool:
        """Whether an option selects the frames to run, or how."""
        passes = self.backward or self.deinterlace
        return bool(self.start or self.end or self.stride != 1 or self.fps or passes)


def run_request(request: RunRequest) -> None:
    """Run a video, or replay a session of the page, and print a summary.

    Raises `MaskstreamError`.
    """
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.prompts import NO_PROMPTS, load_prompts

    configured = load_config(request.config, request.settings)
    request.detector.check(configured.detector)
    log = NO_PROMPTS
    if request.prompts is not None:
        log = load_prompts(request.prompts, _open_source(request, configured))
    if log.tracking:
        _replay(request, configured, log)
    else:
        _run_video(request, configured, log)


def run_with_progress(
    pipeline: Pipeline,
    source: Source,
    outputs: RunOutputs,
    prompts: PromptLog,
    *,
    backward: bool = False,
    hide_progress: bool = False,
) -> RunSummary:
    """Run with a progress bar; Ctrl-C keeps finished frames and prints how to continue."""
    from maskstream.pipeline.engine.backward import BackwardPass

    with progress_bar(hidden=hide_progress) as progress:

        def make_sinks(info: SourceInfo) -> Sequence[Sink]:
            progress.start(info.frame_count)
            return outputs.open(pipeline, info)

        earlier = progress.beside("backward")
        back = BackwardPass(
            outputs.scratch, lambda info: earlier.start(info.frame_count), earlier.advance
        )
        try:
            return pipeline.run(
                source,
                make_sinks,
                prompts,
                on_frame=progress.advance,
                backward=back if backward else None,
            )
        except KeyboardInterrupt:
            pass  # reported below, after the progress bar is closed
    again = [a for a in sys.argv if a not in ("--overwrite", "--resume")] + ["--resume"]
    typer.echo(
        f"stopped; {outputs.committed} frames are safe in {outputs.store}. "
        f"To continue: {shlex.join(again)}",
        err=True,
    )
    raise typer.Exit(INTERRUPTED)


def _open_source(request: RunRequest, configured: PipelineConfig) -> Source:
    from maskstream.pipeline.sources import open_source
    from maskstream.pipeline.sources.position import parse_rate

    return open_source(
        request.source,
        start=request.start,
        end=request.end,
        stride=request.stride,
        rate=None if request.fps is None else parse_rate(request.fps),
        deinterlace=request.deinterlace,
        threads=configured.threads.decode,
    )


def _run_video(request: RunRequest, configured: PipelineConfig, log: PromptLog) -> None:
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.runs.outputs import RunOutputs, requested_span
    from maskstream.pipeline.store import check_writable

    output = request.output
    span = requested_span(
        configured,
        start=request.start,
        end=request.end,
        stride=request.stride,
        backward=request.backward,
        deinterlace=request.deinterlace,
    )
    outputs = RunOutputs(output, request.overlay, request.contact, request.mode, span, log)
    outputs.check(request.inputs)  # before quantizing a model, which takes minutes
    check_writable(output, request.mode)
    pipeline = Pipeline(with_model_folder(configured, request.source))
    finished = outputs.finished(pipeline, request.source)
    if finished is not None:
        typer.echo(f"{output} is complete already ({finished} frames); nothing to run.", err=True)
        return
    summary = run_with_progress(
        pipeline,
        _open_source(request, configured),
        outputs,
        log,
        backward=request.backward,
        hide_progress=request.quiet or request.as_json,
    )
    if request.as_json:
        typer.echo(summary_json(summary, output))
    elif not request.quiet:
        print_summary(summary, output)


def _replay(request: RunRequest, configured: PipelineConfig, log: PromptLog) -> None:
    """Replay the tracking jobs of a session; the last one writes the output."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.output_paths import check_outputs
    from maskstream.pipeline.runs.replay import replay_session

    _check_replay(request)
    check_outputs([request.output], request.inputs)
    models = {job.model for job in log.tracking if job.model is not None}
    count = replay_session(
        Pipeline(with_model_folder(configured, request.source)),
        Path(request.source),
        log,
        request.output,
        overwrite=request.mode == "overwrite",
        models={
            name: Pipeline(with_model_folder(configured.model_copy(update={"model": name})))
            for name in models
        },
    )
    if not (request.quiet or request.as_json):
        typer.echo(f"{request.output}: {count} jobs of the session were run again")


def _check_replay(request: RunRequest) -> None:
    """Raise `ConfigError` for options that conflict with a session's own jobs."""
    if request.detector.given:
        raise ConfigError("these prompts are a session of the page: omit the detector's options")
    if request.mode == "resume" or request.is_partial or request.overlay or request.contact:
        raise ConfigError(
            "these prompts are a session of the page, which defines what is tracked: omit "
            "--start, --end, --stride, --fps, --deinterlace, --backward, --resume, --overlay and "
            "--contact-sheet (`export --format overlay` writes an overlay)"
        )
