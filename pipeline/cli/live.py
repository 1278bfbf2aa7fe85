"""Command `live`: segment a camera or stream in real time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskstream.pipeline.cli.detector_options import DetectorOptions
from maskstream.pipeline.cli.live_request import LiveRequest, run_live
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
    QuietOption,
    TextOption,
)


class Transport(StrEnum):
    """Transport protocol of RTSP."""

    TCP = "tcp"
    UDP = "udp"


class Stamps(StrEnum):
    """Which time message headers have."""

    CAPTURE = "capture"
    STREAM = "stream"
    NTP = "ntp"


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(live)


def live(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]SOURCE...",
            help="rtsp://, http(s)://, tcp:// or udp:// (MPEG-TS), /dev/video0, ros2:/TOPIC, "
            "FORMAT:INPUT of FFmpeg, - (standard input), or a video file, replayed; several "
            "cameras share the model, and each has outputs of its own name.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Mask store to write (OUT.zarr).")
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(help="Keep only about the last 90s, 10m, 2h; the output is then a folder."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    latency_ms: Annotated[
        float | None, typer.Option(min=1, help="Deadline of 95 % of the results (150).")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Stop after 90s, 10m, 2h; default: until Ctrl-C.")
    ] = None,
    preview: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve a preview page.")
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:TARGET]",
            help="jsonl:- (standard output), jsonl:[HOST:]PORT, mcap:FILE, foxglove:[HOST:]PORT, "
            "zenoh:PREFIX, ros2:NODE; repeatable.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME|SIZE",
            help="Go on in a new MCAP file after 10m, or 500MB; repeatable.",
        ),
    ] = None,
    stamps: Annotated[
        Stamps | None,
        typer.Option(
            help="Time in message headers: the wall clock at capture (default), the stream's "
            "timestamp, or capture by the sender's clock (RTSP)."
        ),
    ] = None,
    frame_id: Annotated[
        str | None, typer.Option(help="Coordinate frame in message headers (camera).")
    ] = None,
    camera_info: Annotated[
        Path | None,
        typer.Option(help="Calibration to publish, a YAML file of ROS' camera_calibration."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve Prometheus metrics.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Also record the source to this file (.mkv; .ts of H.264, …)."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of raw frames, or requested from a camera.")
    ] = None,
    pixel_format: Annotated[
        str | None, typer.Option(help="FFmpeg's pixel format; rgb24 for raw frames.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Frame rate requested from a camera.")
    ] = None,
    rtsp: Annotated[Transport, typer.Option(help="Transport protocol of RTSP.")] = Transport.TCP,
    input_options: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="KEY=VALUE", help="An input option of FFmpeg."),
    ] = None,
    config: ConfigOption = None,
    overrides: OverridesOption = None,
    seed: Annotated[
        bool | None,
        typer.Option(
            "--seed/--no-seed", help="Find objects without prompts; default: without a detector."
        ),
    ] = None,
    detector: DetectorOption = None,
    text: TextOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    every: EveryOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End when an output fails, for example on a full disk.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a second; the last is the summary.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Track objects on cameras or streams, within a deadline."""
    run_live(
        LiveRequest(
            sources=sources,
            output=output,
            retain=retain,
            overwrite=overwrite,
            latency_ms=latency_ms,
            duration=duration,
            preview=preview,
            publish=publish or (),
            stamps=None if stamps is None else stamps.value,
            frame_id=frame_id,
            camera_info=camera_info,
            split=split or (),
            metrics=metrics,
            record=record,
            size=size,
            pixel_format=pixel_format,
            rate=rate,
            rtsp=rtsp.value,
            input_options=input_options or (),
            config=config,
            overrides=overrides or (),
            seed=seed,
            detector=DetectorOptions(detector, None, text, classes, labels, every),
            model=ModelOptions(model, device, engine),
            strict=strict,
            as_json=as_json,
            quiet=quiet,
        )
    )
