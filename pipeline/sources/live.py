"""Choose the source of a live input by its name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Literal

import av

from maskstream.pipeline.addresses import masked, quoted
from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.ffmpeg_options import check_input_option
from maskstream.pipeline.sources.not_opened import STANDARD_INPUT
from maskstream.pipeline.sources.packet_feed import CatchUp
from maskstream.pipeline.sources.recording import Recordings, check_recording
from maskstream.pipeline.sources.ros2 import PREFIX, RosTopic
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import Image, LiveArrays, Replay
from maskstream.pipeline.types import Source

# Decode without delay; FFmpeg would analyze a stream for five seconds first.
_LOW_DELAY = {"flags": "low_delay", "analyzeduration": "1000000"}
_UNBUFFERED = {"fflags": "nobuffer"}  # drops analyzed packets, with HLS a whole segment
_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp", "rtp", "srt")
"""URL schemes of live inputs."""
_DEVICES = frozenset(
    {"alsa", "avfoundation", "decklink", "dshow", "fbdev", "gdigrab", "kmsgrab"}
    | {"sdp", "v4l2", "video4linux2", "x11grab", "xcbgrab"}
)
"""Formats of FFmpeg that do not wait for their reader."""
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_NAMES_OF_STANDARD_INPUT = ("-", "pipe:", "/dev/stdin")
_NAMED_FORMAT = re.compile(r"([a-z0-9_]+):(.+)")


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Options for opening a live input.

    size_wh, pixel_format, rate: of raw frames on standard input, where the size is required, or
    requested from a camera or screen. rtsp_transport: transport protocol of RTSP. stall_s: seconds
    without a packet after which the connection counts as lost. extra: additional FFmpeg options.
    """

    size_wh: tuple[int, int] | None = None
    pixel_format: str | None = None
    rate: float | None = None
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    stall_s: float = 3.0
    extra: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class LiveInput:
    """A live source, and whether it can be reopened when it has ended.

    stopped: set it to wake a source that waits for the next time to give a frame. recordings: of
    the source.
    """

    source: Source
    reopenable: bool
    stopped: Event = field(default_factory=Event)
    recordings: Recordings = field(default_factory=Recordings)


def open_live(
    target: str | Path | Iterable[Image],
    options: InputOptions | None = None,
    *,
    record: Path | None = None,
    clock: Clock = SYSTEM_CLOCK,
    threads: int = 1,
    catch_up: CatchUp = CatchUp(),  # noqa: B008 - it is frozen
) -> LiveInput:
    """Choose the source for a live input; nothing is opened yet.

    Args:
        target: `rtsp://`, `http(s)://` (HLS, too), `tcp://` or `udp://` (MPEG-TS), with user name
            and password as `rtsp://USER:PASSWORD@HOST`; a camera (`/dev/video0`, `0`); an image
            topic of ROS 2 (`ros2:/camera/image_raw`, or one that ends in `/compressed`);
            `FORMAT:INPUT` for any other input of FFmpeg (`x11grab::0.0`, `lavfi:testsrc2`); `-` for
            standard input, a container (Matroska, MPEG-TS, Y4M) or, with a size, raw frames; a
            video file, replayed in real time; or images (`LiveArrays`).
        options: format and connection of the input.
        record: a file to record it to, for replay.
        clock: for arrival times.
        threads: of the decoder.
        catch_up: how frames of a camera or network stream are left out when decoding falls behind;
            pipes and FFmpeg's filters wait instead.

    Raises:
        SourceNotFoundError: there is no such file or device, and no such format of FFmpeg.
        ConfigError: an option is missing or does not apply to the input.
        MissingExtraError: a topic is wanted, and ROS 2 is not there.
    """
    if record is not None:
        check_recording(record)
    given = options or InputOptions()
    for option in given.extra:
        check_input_option(option)
    if not isinstance(target, str | Path):
        arrays = LiveArrays(target, record, clock)
        return LiveInput(arrays, reopenable=False, recordings=arrays.recordings)
    name = str(target)
    if name.startswith(PREFIX):
        return _topic(name, given, record, clock)
    stream = _stream(name, given)
    if stream is None:
        if not Path(name).is_file():
            raise SourceNotFoundError(
                f"There is no live input {name}: give a URL, a camera (/dev/video0, 0), "
                "ros2:/TOPIC, FORMAT:INPUT, - for standard input, or a video file."
            )
        if record is not None:
            raise ConfigError(f"{name} is a recording already; leave --record out.")
        if given.extra:
            raise ConfigError(f"{name} is a video file; leave --input out, it is for streams.")
        replay = Replay(open_source(name, threads=threads), clock)
        return LiveInput(replay, reopenable=False, stopped=replay.stopped)
    protocol, found, wanted, has_timestamps = stream
    source = LiveStream(
        found,
        protocol,
        wanted | given.extra,
        timeout_s=given.stall_s,
        has_timestamps=has_timestamps,
        record=record,
        clock=clock,
        threads=threads,
        catch_up=catch_up if protocol in _DEVICES or is_address(found) else None,
    )
    return LiveInput(source, reopenable=found != STANDARD_INPUT, recordings=source.recordings)


def _topic(name: str, given: InputOptions, record: Path | None, clock: Clock) -> LiveInput:
    if given.extra or given.size_wh or given.pixel_format or given.rate:
        raise ConfigError(
            f"{name} is a topic of ROS 2; leave --input, --size, --pixel-format and --rate out."
        )
    topic = RosTopic(name.removeprefix(PREFIX), Event())
    if not topic.topic:
        raise ConfigError(f"{PREFIX} needs a topic, for example {PREFIX}/camera/image_raw")
    topic.check()
    source = LiveArrays(topic, record, clock, masked(name))
    return LiveInput(source, reopenable=False, stopped=topic.stopped, recordings=source.recordings)


def is_address(text: str) -> bool:
    """Whether a text is the URL of a network stream rather than a file."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def _stream(name: str, given: InputOptions) -> tuple[str | None, str, dict[str, str], bool] | None:
    """Format, input and options for FFmpeg, and whether to use its timestamps; None: a file."""
    if name == "-":
        if given.size_wh is None:
            if given.pixel_format is not None:
                raise ConfigError("raw frames on standard input need --size WIDTHxHEIGHT")
            return None, STANDARD_INPUT, {}, True
        wanted = {"pixel_format": given.pixel_format or "rgb24"} | _requested(given)
        return (
            "rawvideo",
            STANDARD_INPUT,
            wanted,
            False,
        )  # its timestamps come from an assumed rate
    if is_address(name):
        name = quoted(name)
        scheme = name.partition("://")[0].lower()
        wanted = _LOW_DELAY | ({} if scheme.startswith("http") else _UNBUFFERED)
        if scheme.startswith("rtsp"):
            wanted["rtsp_transport"] = given.rtsp_transport
        return ("mpegts" if scheme in ("tcp", "udp") else None), name, wanted, True
    if name.isdigit() or name.startswith("/dev/video"):
        camera = _CAMERAS.get(sys.platform, "v4l2")
        device = f"/dev/video{name}" if name.isdigit() and camera == "v4l2" else name
        return camera, device, _requested(given), True
    by_format = _NAMED_FORMAT.fullmatch(name)
    if by_format and any(by_format[1] in f.split(",") for f in av.formats_available):
        found = quoted(by_format[2]) if is_address(by_format[2]) else by_format[2]
        found = STANDARD_INPUT if found in _NAMES_OF_STANDARD_INPUT else found
        return by_format[1], found, _requested(given), True
    return None


def _requested(given: InputOptions) -> dict[str, str]:
    requested = {}
    if given.size_wh is not None:
        requested["video_size"] = "{}x{}".format(*given.size_wh)
    if given.pixel_format is not None:
        requested["pixel_format"] = given.pixel_format
    if given.rate is not None:
        requested["framerate"] = str(given.rate)
    return requested
