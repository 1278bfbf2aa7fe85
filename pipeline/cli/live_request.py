"""Execution of the command `live`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import typer

from maskstream.pipeline.cli.detector_options import NO_DETECTOR, DetectorOptions
from maskstream.pipeline.cli.live_report import StatusLines
from maskstream.pipeline.cli.model_options import NO_MODEL_OPTIONS, ModelOptions
from maskstream.pipeline.errors import (
    ConfigError,
    MaskstreamError,
    SinkError,
    SinkHangsError,
    SourceError,
)

if TYPE_CHECKING:
    from maskstream.pipeline.cli.live_outputs import OutputChoice
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.pipeline.live.status import LiveStatus
    from maskstream.pipeline.sources.live import InputOptions

_ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

SWITCH_S = 0.0005
"""Longest wait of a frame for the keyframe thread to release the interpreter lock; the default of
5 ms, at each of a frame's dozens of OpenCV calls, would cost more than the frame itself."""


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """Options of the command `live`.

    sources: [NAME=]SOURCE of each camera. output: a store, or with `retain` (90s, 10m, 2h) a
    folder. preview, metrics: [HOST:]PORT. publish: channels, KIND[:TARGET]. split: of MCAP, times
    and sizes. size, pixel_format, rate: of raw frames, or requested from a camera.
    input_options: FFmpeg's, KEY=VALUE. stamps, frame_id, camera_info: of message headers. strict:
    end the run when an output fails. None: as configured, or not used.
    """

    sources: Sequence[str] = field(repr=False)  # they may hold passwords
    output: str | None = None
    retain: str | None = None
    overwrite: bool = False
    latency_ms: float | None = None
    duration: str | None = None
    preview: str | None = None
    publish: Sequence[str] = ()
    split: Sequence[str] = ()
    metrics: str | None = None
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
    model: ModelOptions = NO_MODEL_OPTIONS
    stamps: Literal["capture", "stream", "ntp"] | None = None
    frame_id: str | None = None
    camera_info: Path | None = None
    strict: bool = False
    as_json: bool = False
    quiet: bool = False

    @property
    def settings(self) -> list[str]:
        """Configuration overrides, `key=value`."""
        seed = not self.detector.given if self.seed is None else self.seed
        settings = [f"seeding.enabled={str(seed).lower()}", *self.overrides]
        settings += [*self.detector.settings, *self.model.settings]
        if self.latency_ms is not None:
            settings.append(f"live.latency_ms={self.latency_ms}")
        for name in ("stamps", "frame_id", "camera_info"):
            value = getattr(self, name)
            if value is not None:
                settings.append(f"live.{name}={json.dumps(str(value))}")
        return settings

    @property
    def outputs(self) -> OutputChoice:
        """Options for the outputs."""
        from maskstream.pipeline.cli.live_outputs import OutputChoice

        return OutputChoice(
            self.output,
            self.retain,
            self.overwrite,
            self.publish,
            self.split,
            self.preview,
            self.metrics,
            self.quiet,
        )

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
    """Run all cameras until they end, and print their status.

    Raises `MaskstreamError`.
    """
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.cli.live_outputs import CameraOutputs
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.live.camera_names import name_cameras, own_path
    from maskstream.pipeline.live.cameras import LiveCameras
    from maskstream.pipeline.live.live_store import parse_duration
    from maskstream.pipeline.live.outputs import Outputs
    from maskstream.pipeline.output_paths import check_outputs

    named = name_cameras(request.sources)
    clip = next((source for source in named.values() if Path(source).is_file()), None)
    outputs = CameraOutputs(request.outputs, tuple(named))
    stores = [outputs.store_path(name) for name in named]
    check_outputs(stores, [*named.values(), request.config, *request.detector.inputs])
    configured = load_config(request.config, request.settings)
    request.detector.check(configured.detector)
    configured = with_model_folder(configured, clip)
    if len(named) > 1 and configured.live.camera_info:
        raise ConfigError("a calibration (--camera-info) is that of one camera; there are several")
    duration_s = None if request.duration is None else parse_duration(request.duration)
    record = request.record
    cameras = LiveCameras.open(
        named,
        configured,
        request.input(configured),
        record={} if record is None else {n: Path(own_path(str(record), n)) for n in named},
    )
    for session in cameras.sessions.values():
        session.outputs = Outputs(strict=request.strict)
    lines = StatusLines(as_json=request.as_json, quiet=request.quiet)

    def on_failure(name: str, error: Exception) -> None:
        if name and isinstance(error, MaskstreamError):
            lines.failure(name, error)
        if request.strict or not isinstance(error, MaskstreamError):
            cameras.stop()

    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack, _ended_by_signals(cameras.stop):
        outputs.serve_metrics(cameras, stack)
        summaries = cameras.run(
            partial(outputs.publishers, cameras),
            behind=partial(outputs.behind, cameras),
            on_status=lines.status,
            on_failure=on_failure,
            duration_s=duration_s,
        )
    if any("status" in summary.abandoned for summary in summaries.values()):
        _exit("the output does not take the status; the run has ended")
    for name, summary in summaries.items():
        if name not in cameras.failures:
            lines.summary(name, summary)
    _end(summaries, cameras.failures)


def _end(summaries: Mapping[str, LiveStatus], failures: Mapping[str, Exception]) -> None:
    """Raise what went wrong, or end the process at once where a thread hangs."""
    hanging = next((e for e in failures.values() if isinstance(e, SinkHangsError)), None)
    for name, error in failures.items():
        if not (name and isinstance(error, MaskstreamError)) and error is not hanging:
            raise error
    if hanging is not None:
        _exit(str(hanging))
    silent = [name for name, summary in summaries.items() if "source" in summary.abandoned]
    if silent:
        which = f" of {', '.join(silent)}" if any(silent) else ""
        _exit(
            f"the source{which} fell silent and could not be closed; all outputs are complete up "
            "to its last frame"
        )
    failed = {
        f"{name} {output}".lstrip(): reason
        for name, summary in summaries.items()
        for output, reason in summary.failed.items()
    }
    if failed:
        reasons = "; ".join(f"{output}: {reason}" for output, reason in failed.items())
        raise SinkError(f"the run went on without outputs that failed ({reasons})")
    if len(failures) == len(summaries):
        raise SourceError("all cameras failed")
    if failures:
        raise SourceError(f"the run went on without cameras that failed ({', '.join(failures)})")


def _exit(reason: str) -> NoReturn:
    """End the process at once with an error; a thread that hangs would hold up a regular end."""
    typer.echo(f"error: {reason}", err=True)
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(1)


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
