"""Execution of the command `live`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import typer

from maskstream.pipeline.cli.detector_options import NO_DETECTOR, DetectorOptions
from maskstream.pipeline.errors import ConfigError, SinkError, SinkHangsError

if TYPE_CHECKING:
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.pipeline.live.session import LiveSession, MakeSinks
    from maskstream.pipeline.live.status import LiveStatus
    from maskstream.pipeline.sources.live import InputOptions
    from maskstream.pipeline.types import Sink, SourceInfo


_ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

SWITCH_S = 0.0005
"""Longest wait of a frame for the keyframe thread to release the interpreter lock; the default of
5 ms, at each of a frame's dozens of OpenCV calls, would cost more than the frame itself."""


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """Options of the command `live`.

    output: a store, or with `retain` (90s, 10m, 2h) a folder. preview, metrics: ports. publish:
    channels, KIND[:TARGET]. size, pixel_format, rate: of raw frames, or requested from a camera.
    input_options: FFmpeg's, KEY=VALUE. strict: end the run when an output fails. None: as
    configured, or not used.
    """

    source: str = field(repr=False)  # it may hold a password
    output: str | None = None
    retain: str | None = None
    overwrite: bool = False
    latency_ms: float | None = None
    duration: str | None = None
    preview: int | None = None
    publish: Sequence[str] = ()
    metrics: int | None = None
    record: Path | None = None
    size: str | None = None
    pixel_format: str | None = None
    rate: float | None = None
    rtsp: Literal["tcp", "udp"] = "tcp"
    input_options: Sequence[str] = field(default=(), repr=False)
    config: Path | None = None
    overrides: Sequence[str] = ()
    seed: bool | None = None
    detector: DetectorOptions = NO_DETECTOR
    model: str | None = None
    strict: bool = False
    as_json: bool = False
    quiet: bool = False

    @property
    def settings(self) -> list[str]:
        """Configuration overrides, `key=value`."""
        seed = not self.detector.given if self.seed is None else self.seed
        settings = [f"seeding.enabled={str(seed).lower()}", *self.overrides]
        settings += self.detector.settings
        if self.latency_ms is not None:
            settings.append(f"live.latency_ms={self.latency_ms}")
        if self.model is not None:
            settings.append(f"model={self.model}")
        return settings

    def input(self, config: PipelineConfig) -> InputOptions:
        """Options for opening the source. Raises `ConfigError`."""
        from maskstream.pipeline.sources.live import InputOptions

        pairs = [text.partition("=") for text in self.input_options]
        size_wh = self._size_wh()
        wrong = next((key for key, separator, _ in pairs if not separator), None)
        if wrong is not None:
            raise ConfigError(f"--input takes KEY=VALUE, not '{wrong}'")
        return InputOptions(
            size_wh,
            self.pixel_format,
            self.rate,
            self.rtsp,
            stall_s=config.live.stall_s,
            extra={key: value for key, _, value in pairs},
        )

    def _size_wh(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
            raise ConfigError(f"--size is WIDTHxHEIGHT, for example 1280x720, not '{self.size}'")
        return int(width), int(height)


def run_live(request: LiveRequest) -> None:
    """Run a live session until it ends, and print its status.

    Raises `MaskstreamError`.
    """
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.live.live_store import parse_duration
    from maskstream.pipeline.live.outputs import Outputs
    from maskstream.pipeline.live.publishers import open_channels, parse_channel
    from maskstream.pipeline.live.session import LiveSession
    from maskstream.pipeline.output_paths import check_outputs

    check_outputs([request.output], [request.source, request.config, *request.detector.inputs])
    clip = request.source if Path(request.source).is_file() else None
    if request.retain is not None and request.output is None:
        raise ConfigError("--retain needs -o: the folder to keep the last results in")
    configured = with_model_folder(load_config(request.config, request.settings), clip)
    options = request.input(configured)
    duration_s = None if request.duration is None else parse_duration(request.duration)
    retain_s = None if request.retain is None else parse_duration(request.retain)
    channels = [parse_channel(text) for text in request.publish]
    session = LiveSession.open(request.source, configured, options, record=request.record)

    session.outputs = Outputs(strict=request.strict)

    def publishing(info: SourceInfo) -> Sequence[Sink]:
        opened = open_channels(channels, session.commands.put)
        return session.outputs.guard(request.publish, opened)

    def behind(info: SourceInfo) -> Sequence[Sink]:
        sinks: list[Sink] = []
        if request.output is not None:
            overwrite = request.overwrite
            store = _store(session, info, request.output, retain_s, overwrite=overwrite)
            sinks.extend(session.outputs.guard([request.output], [store]))
        if request.preview is not None:
            sinks.append(_preview(session, info, request.preview))
        return sinks

    def on_status(status: LiveStatus) -> None:
        if request.as_json:
            typer.echo(json.dumps(status.to_json()))
        elif not request.quiet:
            typer.echo(f"\r{_line(status)}", nl=False, err=True)

    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        if request.metrics is not None:
            from maskstream.pipeline.live.metrics import MetricsServer

            server = MetricsServer(request.metrics, session.status)
            stack.callback(server.close)
            _echo(server.url, quiet=request.quiet)
        try:
            summary = _run(session, publishing, behind, on_status, duration_s)
        except SinkHangsError as error:
            _exit(str(error))
    if "status" in summary.abandoned:
        _exit("the output does not take the status; the run has ended")
    if request.as_json:
        typer.echo(json.dumps(summary.to_json("summary")))
    elif not request.quiet:
        typer.echo(f"\n{_line(summary)}", err=True)
    if summary.abandoned:
        _exit(
            "the source fell silent and could not be closed; all outputs are complete up to its "
            "last frame"
        )
    if summary.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in summary.failed.items())
        raise SinkError(f"the run went on without outputs that failed ({reasons})")


def _exit(reason: str) -> NoReturn:
    """End the process at once with an error; a thread that hangs would hold up a regular end."""
    typer.echo(f"error: {reason}", err=True)
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(1)


def _run(
    session: LiveSession,
    publishing: MakeSinks,
    behind: MakeSinks,
    on_status: Callable[[LiveStatus], None],
    duration_s: float | None,
) -> LiveStatus:
    """Run until the session ends; the first Ctrl-C, SIGTERM or SIGHUP stops it cleanly."""
    with _ended_by_signals(session.stop):
        return session.run(publishing, behind=behind, on_status=on_status, duration_s=duration_s)


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first signal; the second ends the process.

    A thread waits for them: Python's own handlers would run in the main thread, which may have
    begun to wait for the source just before the signal came. A signal that is ignored (nohup) stays
    ignored.
    """
    incoming, outgoing = socket.socketpair()
    outgoing.setblocking(False)
    handled = [n for n in _ENDING_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]

    def watch() -> None:
        stopped = False
        while numbers := incoming.recv(1):
            if numbers[0] not in handled:
                continue
            if stopped:
                os._exit(128 + numbers[0])
            stopped = True
            stop()

    thread = threading.Thread(target=watch, name="maskstream-signals", daemon=True)
    thread.start()
    wakeup_before = signal.set_wakeup_fd(outgoing.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda number, stack: None) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        outgoing.close()
        thread.join()
        incoming.close()


def _store(
    session: LiveSession, info: SourceInfo, output: str, retain_s: float | None, *, overwrite: bool
) -> Sink:
    from maskstream.pipeline.live.live_store import (
        LiveStore,
        RollingStore,
        prepare_folder,
        writer_opener,
    )

    open_writer = writer_opener(session.pipeline, info, overwrite=overwrite)
    if retain_s is None:
        return LiveStore(open_writer(output))
    if "://" in output:
        raise ConfigError("--retain needs a local folder for its output, not a URL")
    prepare_folder(Path(output), overwrite=overwrite)
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
        f"{status.frames} frames, {status.fps:.1f} fps, {status.drops} dropped, "
        f"{status.objects} objects, latency p50 {recent['p50']} p95 {recent['p95']} ms, governor "
        f"{governor.level}/{governor.levels} ({governor.reason})"
    )
    if status.full:
        line += ", no more objects: all ids are used"
    if status.failed:
        line += f", failed: {', '.join(status.failed)}"
    if not status.source["connected"] and status.source["trouble"]:
        line += f", disconnected: {status.source['trouble']}"
    return f"{line:<150}"
