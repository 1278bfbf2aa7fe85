"""Command `live`: a camera or stream in, masks out at once."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.pipeline.live.session import LiveSession, MakeSinks
    from maskstream.pipeline.live.status import LiveStatus
    from maskstream.pipeline.sources.live import InputOptions
    from maskstream.pipeline.types import Sink, SourceInfo


SWITCH_S = 0.0005
"""How long a keyframe's Python may keep a frame waiting; the interpreter's own 5 ms, at each of a
frame's dozens of calls into OpenCV, would cost more than the frame."""


class Transport(StrEnum):
    """How RTSP carries its packets."""

    TCP = "tcp"
    UDP = "udp"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(live)


def live(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="rtsp://, http(s)://, tcp:// or udp:// (MPEG-TS), /dev/video0, FORMAT:INPUT of "
            "FFmpeg, - (raw frames), or a video file, replayed.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Mask store to write (OUT.zarr).")
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(help="Keep only about the last 90s, 10m, 2h; the output is a folder then."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    latency_ms: Annotated[
        float | None, typer.Option(min=1, help="Deadline of 95 % of the results (150).")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="End after 90s, 10m, 2h; otherwise Ctrl-C does.")
    ] = None,
    preview: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of a page that shows the run.")
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:TARGET]",
            help="jsonl:- (standard output), jsonl:PORT, mcap:FILE, foxglove:PORT, zenoh:PREFIX, "
            "ros2:NODE; may be given again.",
        ),
    ] = None,
    metrics: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of a Prometheus endpoint.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Also record the source to this file (.mkv, .ts).")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of raw frames, or asked of a camera.")
    ] = None,
    pixel_format: Annotated[
        str | None, typer.Option(help="As FFmpeg calls it; of raw frames rgb24.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Asked of a camera.")] = None,
    rtsp: Annotated[Transport, typer.Option(help="How RTSP carries packets.")] = Transport.TCP,
    input_options: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="KEY=VALUE", help="An option of FFmpeg's input."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML configuration (see configs/).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key.")
    ] = None,
    seed: Annotated[
        bool, typer.Option("--seed/--no-seed", help="Look for objects that nobody points at.")
    ] = True,
    model: Annotated[str | None, typer.Option(help="Model name, folder or checkpoint.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a second; the last is the summary.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Follow objects through a camera or stream, within a deadline."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.live.live_store import parse_duration
    from maskstream.pipeline.live.publishers import open_channels, parse_channel
    from maskstream.pipeline.live.session import LiveSession

    settings = [f"seeding.enabled={str(seed).lower()}", *(overrides or [])]
    if latency_ms is not None:
        settings.append(f"live.latency_ms={latency_ms}")
    if model is not None:
        settings.append(f"model={model}")
    clip = source if Path(source).is_file() else None
    configured = with_model_folder(load_config(config, settings), clip)
    options = _input_options(size, pixel_format, rate, rtsp, input_options, configured)
    duration_s = None if duration is None else parse_duration(duration)
    retain_s = None if retain is None else parse_duration(retain)
    channels = [parse_channel(text) for text in publish or []]
    session = LiveSession.open(source, configured, options, record=record)

    def publishing(info: SourceInfo) -> Sequence[Sink]:
        return open_channels(channels, session.commands.put)

    def behind(info: SourceInfo) -> Sequence[Sink]:
        sinks: list[Sink] = []
        if output is not None:
            sinks.append(_store(session, info, output, retain_s, overwrite=overwrite))
        if preview is not None:
            sinks.append(_preview(session, info, preview))
        return sinks

    def tell(status: LiveStatus) -> None:
        if as_json:
            typer.echo(json.dumps(status.to_json()))
        elif not quiet:
            typer.echo(f"\r{_line(status)}", nl=False, err=True)

    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        if metrics is not None:
            from maskstream.pipeline.live.metrics import MetricsServer

            server = MetricsServer(metrics, session.status)
            stack.callback(server.close)
            _echo(server.url, quiet=quiet)
        summary = _run(session, publishing, behind, tell, duration_s)
    if as_json:
        typer.echo(json.dumps(summary.to_json("summary")))
    elif not quiet:
        typer.echo(f"\n{_line(summary)}", err=True)


def _run(
    session: LiveSession,
    publishing: MakeSinks,
    behind: MakeSinks,
    tell: Callable[[LiveStatus], None],
    duration_s: float | None,
) -> LiveStatus:
    """Run to the end; the first Ctrl-C or SIGTERM is one."""

    def end(number: int, stack: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the next one is not so gentle
        session.stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return session.run(publishing, behind=behind, on_status=tell, duration_s=duration_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _input_options(
    size: str | None,
    pixel_format: str | None,
    rate: float | None,
    rtsp: Transport,
    extra: Sequence[str] | None,
    config: PipelineConfig,
) -> InputOptions:
    from maskstream.pipeline.sources.live import InputOptions

    size_wh: tuple[int, int] | None = None
    if size is not None:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
            raise ConfigError(f"--size is WIDTHxHEIGHT, for example 1280x720, not '{size}'")
        size_wh = int(width), int(height)
    pairs = [text.partition("=") for text in extra or []]
    wrong = next((key for key, separator, _ in pairs if not separator), None)
    if wrong is not None:
        raise ConfigError(f"--input takes KEY=VALUE, not '{wrong}'")
    return InputOptions(
        size_wh,
        pixel_format,
        rate,
        rtsp.value,
        stall_s=config.live.stall_s,
        extra={key: value for key, _, value in pairs},
    )


def _store(
    session: LiveSession, info: SourceInfo, output: str, retain_s: float | None, *, overwrite: bool
) -> Sink:
    from maskstream.pipeline.live.live_store import (
        LiveStore,
        RollingStore,
        make_room,
        writer_opener,
    )

    open_writer = writer_opener(session.pipeline, info, overwrite=overwrite)
    if retain_s is None:
        return LiveStore(open_writer(output))
    if "://" in output:
        raise ConfigError("--retain needs a local folder for its output, not a URL")
    make_room(Path(output), overwrite=overwrite)
    return RollingStore(Path(output), retain_s, open_writer)


def _preview(session: LiveSession, info: SourceInfo, port: int) -> Sink:
    from maskstream.pipeline.live.preview import PreviewServer

    def status() -> dict[str, object]:
        return session.status().to_json() | {"size": list(info.size_hw)}

    server = PreviewServer(port, status, session.commands.put)
    _echo(server.url, quiet=False)
    return server


def _echo(url: str, *, quiet: bool) -> None:
    if not quiet:
        typer.echo(url, err=True)


def _line(status: LiveStatus) -> str:
    recent, governor = status.recent_latency_ms, status.governor
    line = (
        f"{status.frames} frames, {status.fps:.1f} a second, {status.drops} dropped, "
        f"{status.objects} objects, latency p50 {recent['p50']} p95 {recent['p95']} ms, governor "
        f"{governor.level}/{governor.levels} ({governor.reason})"
    )
    if status.full:
        line += ", no more objects: every number is given"
    if not status.source["connected"] and status.source["trouble"]:
        line += f", away: {status.source['trouble']}"
    return f"{line:<150}"
