"""Commands `run` and `demo`: a video in, a mask store (and an overlay) out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.report import print_summary, progress_bar, summary_json
from maskstream.pipeline.errors import ConfigError, StoreExistsError

if TYPE_CHECKING:
    from maskstream.pipeline.engine.pipeline import Pipeline, RunSummary
    from maskstream.pipeline.prompts import PromptLog
    from maskstream.pipeline.runs.outputs import RunOutputs
    from maskstream.pipeline.store import StoreMode
    from maskstream.pipeline.types import Sink, Source, SourceInfo

INTERRUPTED = 130


class Preset(StrEnum):
    """A configuration that comes with the package."""

    FAST = "fast"
    BALANCED = "balanced"
    QUALITY = "quality"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(demo)


def run(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Video file, image folder or pattern.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Mask store to write (OUT.zarr, or a URL).")
    ],
    config: Annotated[Path | None, typer.Option(help="YAML configuration (see configs/).")] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="A ready configuration in the place of --config.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON file of clicks and boxes.")] = None,
    seed: Annotated[
        bool | None,
        typer.Option(
            "--seed/--no-seed", help="Also look for objects; by default if there are no prompts."
        ),
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Also write a video with the masks.")] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet (PNG).")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First frame: 120, 3.5s or 00:00:03.5.")] = None,
    end: Annotated[str | None, typer.Option(help="Frame to stop before, like --start.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every n-th frame.")] = 1,
    backward: Annotated[
        bool, typer.Option("--backward", help="Follow objects to frames before their prompt, too.")
    ] = False,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Blend masks between two keyframes from both; files do by default.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name, folder or checkpoint.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted store.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Follow objects through a video and store their masks."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import SHIPPED, load_config
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.prompts import NO_PROMPTS, load_prompts
    from maskstream.pipeline.runs.outputs import RunOutputs
    from maskstream.pipeline.sources import open_source
    from maskstream.pipeline.store import check_room

    if overwrite and resume:
        raise ConfigError("--overwrite and --resume exclude each other")
    if preset is not None:
        if config is not None:
            raise ConfigError("--preset and --config exclude each other")
        config = SHIPPED / f"{preset}.yaml"
    settings = list(overrides or [])
    if seed is not None or prompts is not None:  # who points at objects wants those
        settings.append(f"seeding.enabled={str(bool(seed)).lower()}")
    if refine is not None:
        settings.append(f"tracking.refine={str(refine).lower()}")
    if model is not None:
        settings.append(f"model={model}")
    if device is not None:
        settings.append(f"device={device}")
    mode: StoreMode = "overwrite" if overwrite else "resume" if resume else "create"
    configured = load_config(config, settings)
    passes = {"backward": backward, "refine": configured.refines}
    span = {"start": start, "end": end, "stride": stride} | {k: v for k, v in passes.items() if v}
    log = NO_PROMPTS if prompts is None else load_prompts(prompts)
    if log.tracking:
        span_given = start or end or stride != 1 or backward
        _check_replay(resume=resume, others=bool(span_given or overlay or contact_sheet))
        _replay(Pipeline(with_model_folder(configured, source)), Path(source), log, output, mode)
        if not (quiet or json):
            typer.echo(f"{output}: {len(log.tracking)} jobs of the session were run again")
        return
    check_room(output, mode)  # before a model is made, which takes minutes
    pipeline = Pipeline(with_model_folder(configured, source))
    outputs = RunOutputs(output, overlay, contact_sheet, mode, span, log)
    finished = outputs.finished(pipeline, source)
    if finished is not None:
        typer.echo(f"{output} is complete already ({finished} frames); nothing to run.", err=True)
        return
    opened = open_source(source, start=start, end=end, stride=stride)
    summary = _run(pipeline, opened, outputs, log, backward=backward, hide_progress=quiet or json)
    if json:
        typer.echo(summary_json(summary, output))
    elif not quiet:
        print_summary(summary, output)


def demo(
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = Path("out/demo"),
) -> None:
    """Run on a real clip: find objects, track them, write store, overlay and contact sheet."""
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.prompts import NO_PROMPTS
    from maskstream.pipeline.runs.outputs import RunOutputs
    from maskstream.pipeline.sources import open_source
    from maskstream.pipeline.sources.demo import demo_clip

    clip = open_source(demo_clip())
    folder.mkdir(parents=True, exist_ok=True)
    outputs = RunOutputs(
        folder / "masks.zarr", folder / "overlay.mp4", folder / "contact.png", "overwrite"
    )
    print_summary(_run(Pipeline.from_config(), clip, outputs, NO_PROMPTS), folder)


def _check_replay(*, resume: bool, others: bool) -> None:
    """Raise `ConfigError` for options that a session's own jobs leave no room for."""
    if resume or others:
        raise ConfigError(
            "these prompts are a session of the page, which says itself what is tracked: leave out "
            "--start, --end, --stride, --backward, --resume, --overlay and --contact-sheet "
            "(`export --format overlay` makes the overlay)"
        )


def _replay(pipeline: Pipeline, source: Path, log: PromptLog, output: str, mode: StoreMode) -> None:
    """Run the jobs of a session again, the last one into `output`."""
    from maskstream.pipeline.runs.retrack import run_job
    from maskstream.pipeline.sources.seekable import open_seekable
    from maskstream.pipeline.store import MaskStore

    if "://" in output:
        raise ConfigError("a session of the page is run again into a local folder, not a URL")
    if mode == "create" and Path(output).exists():
        raise StoreExistsError(f"{output} is there already; give --overwrite to replace it.")
    video = open_seekable(source)
    with TemporaryDirectory(dir=Path(output).absolute().parent, prefix=".replay-") as folder:
        before: MaskStore | None = None
        for number, job in enumerate(log.tracking, start=1):
            is_last = number == len(log.tracking)
            target = Path(output) if is_last else Path(folder) / f"{number}.zarr"
            run_job(pipeline, video, job, before, target)
            before = MaskStore(target)
    video.close()


def _run(
    pipeline: Pipeline,
    source: Source,
    outputs: RunOutputs,
    prompts: PromptLog,
    *,
    backward: bool = False,
    hide_progress: bool = False,
) -> RunSummary:
    """Run with a progress bar; Ctrl-C keeps what is done and says how to go on."""
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
            pass  # reported below, when the progress bar is gone
    again = [a for a in sys.argv if a not in ("--overwrite", "--resume")] + ["--resume"]
    typer.echo(
        f"stopped; {outputs.committed} frames are safe in {outputs.store}. "
        f"To go on: {shlex.join(again)}",
        err=True,
    )
    raise typer.Exit(INTERRUPTED)
