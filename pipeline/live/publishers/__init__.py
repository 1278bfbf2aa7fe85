"""Publishers of live results, by name: `--publish jsonl:-`, `mcap:FILE`, `foxglove:PORT`, …."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.camera_names import own_path
from maskstream.pipeline.live.commands import TakeCommand
from maskstream.pipeline.live.endpoints import Endpoint, parse_endpoint
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.live.splits import NO_SPLIT, Split
from maskstream.pipeline.types import Sink


@dataclass(frozen=True, slots=True)
class Channel:
    """A parsed channel name: kind of publisher, and target (file, address or prefix)."""

    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How channels are opened.

    camera: name of one of several cameras, which is in its files, topics and messages; "" for a
    single one. number: of that camera, from 0; its servers listen so many ports further. split:
    when a recording goes on in a new file. headers: what the headers of messages say.
    """

    camera: str = ""
    number: int = 0
    split: Split = NO_SPLIT
    headers: Headers = DEFAULT_HEADERS


DEFAULT_OPTIONS = ChannelOptions()


def parse_channel(text: str) -> Channel:
    """Parse KIND[:TARGET]. Raises `ConfigError`, also if its [HOST:]PORT is malformed."""
    kind, _, target = text.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"there is no channel '{kind}'; --publish takes {', '.join(KINDS)}")
    if (kind == "jsonl" and not _is_output(target)) or (kind == "foxglove" and target):
        _endpoint(target, kind)
    return Channel(kind, target)


def open_channel(
    channel: Channel, take: TakeCommand, options: ChannelOptions = DEFAULT_OPTIONS
) -> Sink:
    """Open a publisher; `take` receives the commands that arrive over the channel.

    Raises:
        ConfigError: the channel's target is malformed, or taken.
        MissingExtraError: the channel needs a package that is not installed.
    """
    return KINDS[channel.kind](channel.target, take, options)


def _jsonl(target: str, take: TakeCommand, options: ChannelOptions) -> Sink:
    from maskstream.pipeline.live.publishers.jsonlines import JsonOverTcp, JsonToOutput

    if _is_output(target):
        return JsonToOutput(options.camera)
    return JsonOverTcp(_endpoint(target, "jsonl").beside(options.number), take, options.camera)


def _is_output(target: str) -> bool:
    return target in ("", "-")


def _mcap(target: str, take: TakeCommand, options: ChannelOptions) -> Sink:
    from maskstream.pipeline.live.publishers.mcap_recording import McapRecording

    return McapRecording(
        own_path(target, options.camera), options.headers, options.camera, options.split
    )


def _foxglove(target: str, take: TakeCommand, options: ChannelOptions) -> Sink:
    from maskstream.pipeline.live.publishers.foxglove import FoxgloveServer

    endpoint = _endpoint(target or "8765", "foxglove").beside(options.number)
    return FoxgloveServer(endpoint, take, options.headers, options.camera)


def _zenoh(target: str, take: TakeCommand, options: ChannelOptions) -> Sink:
    from maskstream.pipeline.live.publishers.zenoh import ZenohPublisher

    return ZenohPublisher(target or "maskstream", take, options.headers, options.camera)


def _ros2(target: str, take: TakeCommand, options: ChannelOptions) -> Sink:
    from maskstream.pipeline.live.publishers.ros2 import Ros2Publisher

    name = target or "maskstream"
    own = f"{name}_{options.camera}" if options.camera else name
    return Ros2Publisher(own, take, options.headers)


def _endpoint(target: str, kind: str) -> Endpoint:
    return parse_endpoint(target.removeprefix("tcp://"), f"--publish {kind}:")


KINDS: dict[str, Callable[[str, TakeCommand, ChannelOptions], Sink]] = {
    "jsonl": _jsonl,
    "mcap": _mcap,
    "foxglove": _foxglove,
    "zenoh": _zenoh,
    "ros2": _ros2,
}


def open_channels(
    channels: Sequence[Channel], take: TakeCommand, options: ChannelOptions = DEFAULT_OPTIONS
) -> list[Sink]:
    """Open all channels, or none if one fails. Raises as `open_channel`."""
    opened: list[Sink] = []
    try:
        for channel in channels:
            opened.append(open_channel(channel, take, options))
    except BaseException:
        for sink in opened:
            sink.close(complete=False)
        raise
    return opened
