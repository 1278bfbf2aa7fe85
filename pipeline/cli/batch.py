"""Command `batch`: run many videos on this machine or on a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.detector_options import DetectorOptions
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ClassesOption,
    ConfigOption,
    DetectorOption,
    DeviceOption,
    EngineOption,
    EveryOption,
    LabelsOption,
    ModelOption,
    OverridesOption,
    PresetOption,
    QuietOption,
    TextOption,
    preset_or_config,
)
from maskstream.pipeline.cli.run_request import INTERRUPTED, RunRequest
from maskstream.pipeline.errors import MaskstreamError

if TYPE_CHECKING:
    from maskstream.pipeline.batch.driver import Driver, Listener, Totals
    from maskstream.pipeline.batch.report import Report
    from maskstream.pipeline.batch.tasks import BatchJob, Executor
    from maskstream.pipeline.config import DetectorConfig

_FAILED = 1
_USAGE = 2


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(batch)


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS",
            help="Videos, folders, patterns, URLs, and manifests (CSV, JSON lines, Parquet).",
        ),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Folder or URL for stores and the report.")
    ],
    on: Annotated[
        str,
        typer.Option(
            "--on",
            help="local: processes here; ray://HOST:PORT; ray: the cluster here, or a new one.",
        ),
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos at once; default: as the cores allow.")
    ] = None,
    cores: Annotated[
        int, typer.Option("--per-video-cores", min=1, max=64, help="Cores of each video.")
    ] = 2,
    gpus: Annotated[
        float,
        typer.Option("--gpu-share", min=0, help="GPUs of each video on Ray; 0.5: half of one."),
    ] = 0.0,
    config: ConfigOption = None,
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    prompts_dir: Annotated[
        str | None, typer.Option(help="Folder or URL with NAME.json: prompts of the output NAME.")
    ] = None,
    seed: Annotated[
        bool | None,
        typer.Option(
            "--seed/--no-seed", help="Also find objects; default: only without prompts or detector."
        ),
    ] = None,
    detector: DetectorOption = None,
    text: TextOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    every: EveryOption = None,
    export: Annotated[
        list[str] | None, typer.Option(help="Also export each store in this format; repeatable.")
    ] = None,
    split_shots: Annotated[
        bool,
        typer.Option(
            "--split-shots", help="Cut long videos at scene cuts into parts that run in parallel."
        ),
    ] = False,
    part_min: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a part at least, with --split-shots.")
    ] = 30.0,
    tries: Annotated[int, typer.Option(min=1, help="Tries of a video in all.")] = 3,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace stores made from other input or settings.")
    ] = False,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder on a worker's disk for copies of remote videos.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Run many videos: what is complete is skipped, what is half done goes on.

    Exit codes: 0; 1 if videos failed or the report cannot be written; 2 for wrong usage; 130 after
    Ctrl-C.
    """
    from maskstream.pipeline.batch.driver import Driver, Totals
    from maskstream.pipeline.batch.out_folder import check_out
    from maskstream.pipeline.batch.report import Report

    started = time.monotonic()
    with ExitStack() as stack:
        try:
            _check_threads(overrides or ())
            request = RunRequest(
                source="",
                output=output,
                config=preset_or_config(preset, config),
                overrides=[*(overrides or ()), f"threads.inference={cores}"],
                model=ModelOptions(model, device, engine),
                seed=seed,
                detector=DetectorOptions(detector, None, text, classes, labels, every),
            )
            job = replace(
                _job(request, prompts_dir, export or (), overwrite=overwrite, scratch=scratch),
                split_shots=split_shots,
                part_min_s=part_min,
            )
            total = _check(job, inputs)
            job = replace(job, began=check_out(job.out))
            report = Report(job)
            executor = _executor(on, job, workers, cores, gpus)
            stack.callback(executor.close)
            shown = _shown(stack, total, as_json=as_json, quiet=quiet)
        except MaskstreamError as error:
            _tell_error(error)
            raise typer.Exit(_USAGE) from None
        driver = Driver(executor, [report, shown], tries, totals=Totals(total))
        problems = _run(driver, report, inputs, job.out)
    _tell_end(driver.totals, time.monotonic() - started, output, as_json=as_json, quiet=quiet)
    for problem in problems:
        _tell_error(problem)
    if driver.drained and not problems:
        raise typer.Exit(INTERRUPTED)
    if driver.totals.failed or problems:
        raise typer.Exit(_FAILED)


def _job(
    request: RunRequest,
    prompts_dir: str | None,
    exports: list[str] | tuple[str, ...],
    *,
    overwrite: bool,
    scratch: Path | None,
) -> BatchJob:
    """Make the job, with the settings of `run`. Raises `MaskstreamError`."""
    from maskstream.pipeline.batch.tasks import BatchJob
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config

    config = load_config(request.config, request.settings)
    request.detector.check(config.detector)
    return BatchJob(
        out=request.output,
        config=with_model_folder(config),
        seed_prompted=bool(request.seed),
        prompts_dir=prompts_dir,
        exports=tuple(exports),
        overwrite=overwrite,
        scratch=None if scratch is None else str(scratch),
    )


def _check_threads(overrides: Sequence[str]) -> None:
    from maskstream.pipeline.errors import ConfigError

    if any(override.partition("=")[0].strip() == "threads.inference" for override in overrides):
        raise ConfigError("--per-video-cores sets threads.inference in a batch: give it instead")


def _check(job: BatchJob, inputs: list[str]) -> int:
    """Raise `MaskstreamError` for what would be wrong for every video; returns their number."""
    from maskstream.pipeline.batch.files import is_folder
    from maskstream.pipeline.batch.inputs import check_outside, tasks_of
    from maskstream.pipeline.errors import ConfigError
    from maskstream.pipeline.exports.registry import find_format
    from maskstream.pipeline.models.open import locate_model
    from maskstream.pipeline.runs.parts import check_splittable
    from maskstream.pipeline.tracking.refinement import check_refinable

    for name in job.exports:
        find_format(name)
    check_outside(job.out, inputs)
    if job.prompts_dir is not None and not is_folder(job.prompts_dir):
        raise ConfigError(f"There is no folder {job.prompts_dir} with prompts.")
    check_refinable(job.config)
    if job.split_shots:
        check_splittable(job.config)
    locate_model(job.config)
    _check_detector(job.config.detector)
    return sum(1 for _ in tasks_of(inputs, job.out))


def _check_detector(config: DetectorConfig) -> None:
    """Raise `DetectorError` or `MissingExtraError` for what needs no graph to be loaded."""
    from maskstream.pipeline.detectors.graph import find_graph
    from maskstream.pipeline.detectors.open import open_detector

    if config.model is None:
        open_detector(config)
    elif not config.text:
        find_graph(Path(config.model))


def _executor(on: str, job: BatchJob, workers: int | None, cores: int, gpus: float) -> Executor:
    """The pool of processes, or of actors on Ray. Raises `MaskstreamError`."""
    from maskstream.pipeline.batch.splitting import SplittingPool

    return SplittingPool(_pool(on, job, workers, cores, gpus), job)


def _pool(on: str, job: BatchJob, workers: int | None, cores: int, gpus: float) -> Executor:
    from maskstream.pipeline.batch.local import LocalPool
    from maskstream.pipeline.batch.worker import OpenRuns
    from maskstream.pipeline.errors import ConfigError

    if on == "local":
        if gpus:
            raise ConfigError("--gpu-share is for Ray, which hands out GPUs: give --on ray")
        count = workers or max(1, len(os.sched_getaffinity(0)) // cores)
        return LocalPool(OpenRuns(job), count, cores)
    if on != "ray" and not on.startswith("ray://"):
        raise ConfigError(f"--on is local, ray or ray://HOST:PORT, not {on}")
    from maskstream.pipeline.batch.on_ray import RayPlace, RayPool

    address = None if on == "ray" else on
    return RayPool(OpenRuns(job), RayPlace(address, cores, gpus, workers))


def _shown(stack: ExitStack, total: int, *, as_json: bool, quiet: bool) -> Listener:
    from maskstream.pipeline.cli.batch_report import JsonEvents, batch_progress

    return JsonEvents() if as_json else stack.enter_context(batch_progress(total, hidden=quiet))


def _run(driver: Driver, report: Report, inputs: list[str], output: str) -> list[MaskstreamError]:
    """Run all tasks and complete the report; returns what went wrong besides the tasks.

    Ctrl-C and SIGTERM drain; again, they end the workers.
    """
    from maskstream.pipeline.batch.inputs import tasks_of

    problems: list[MaskstreamError] = []
    with _draining(driver):
        try:
            with _collecting(problems), suppress(KeyboardInterrupt):
                driver.run(tasks_of(inputs, output))
        finally:
            with _collecting(problems):
                report.close()
    return problems


@contextmanager
def _collecting(problems: list[MaskstreamError]) -> Iterator[None]:
    try:
        yield
    except MaskstreamError as error:
        problems.append(error)


@contextmanager
def _draining(driver: Driver) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM drain the batch; a second one stops it at once.

    A third one ends it wherever it is, for example in a report that is not written.
    """

    def drain(number: int, _: object) -> None:
        if driver.stopped:
            raise KeyboardInterrupt
        if driver.drained:
            driver.stop()
            return
        driver.drain()
        typer.echo("stopping after the videos that are running; again to stop at once", err=True)

    before = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_error(error: MaskstreamError) -> None:
    from maskstream.pipeline.batch.report import valid_text

    typer.echo(f"error: {valid_text(str(error))}", err=True)


def _tell_end(totals: Totals, seconds: float, output: str, *, as_json: bool, quiet: bool) -> None:
    from maskstream.pipeline.batch.report import valid_text

    rate = totals.frames / seconds if seconds else 0.0
    if as_json:
        counts = {k: v for k, v in asdict(totals).items() if k not in ("running", "waiting")}
        end = {"event": "end", **counts, "seconds": round(seconds, 3), "fps": round(rate, 2)}
        typer.echo(json.dumps(end))
    elif not quiet:
        typer.echo(
            f"{valid_text(output)}: {totals.done} done, {totals.skipped} complete before, "
            f"{totals.failed} failed; {totals.frames} frames in {seconds:.1f} s, {rate:.1f} fps"
        )
