"""Publishers of live results, by name: `--publish jsonl:-`, `mcap:FILE`, `foxglove:PORT`, …."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.commands import TakeCommand
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.types import Sink


@dataclass(frozen=True, slots=True)
class Channel:
    """A parsed channel name: kind of publisher, and target (file, address or prefix)."""

    kind: str
    target: str


def parse_channel(text: str) -> Channel:
    """Parse KIND[:TARGET]. Raises `ConfigError` if the kind is unknown."""
    kind, _, target = text.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"there is no channel '{kind}'; --publish takes {', '.join(KINDS)}")
    return Channel(kind, target)


def open_channel(channel: Channel, take: TakeCommand, headers: Headers = DEFAULT_HEADERS) -> Sink:
    """Open a publisher; `take` receives the commands that arrive over the channel.

    headers: what the headers of its messages say.

    Raises:
        ConfigError: the channel's target is malformed, or taken.
        MissingExtraError: the channel needs a package that is not installed.
    """
    return KINDS[channel.kind](channel.target, take, headers)


def _jsonl(target: str, take: TakeCommand, headers: Headers) -> Sink:
    from maskstream.pipeline.live.publishers.jsonlines import JsonOverTcp, JsonToOutput

    if target in ("", "-"):
        return JsonToOutput()
    return JsonOverTcp(target, take)


def _mcap(target: str, take: TakeCommand, headers: Headers) -> Sink:
    from maskstream.pipeline.live.publishers.foxglove import McapFile

    return McapFile(target, headers)


def _foxglove(target: str, take: TakeCommand, headers: Headers) -> Sink:
    from maskstream.pipeline.live.publishers.foxglove import FoxgloveServer

    return FoxgloveServer(target or "8765", take, headers)


def _zenoh(target: str, take: TakeCommand, headers: Headers) -> Sink:
    from maskstream.pipeline.live.publishers.zenoh import ZenohPublisher

    return ZenohPublisher(target or "maskstream", take, headers)


def _ros2(target: str, take: TakeCommand, headers: Headers) -> Sink:
    from maskstream.pipeline.live.publishers.ros2 import Ros2Publisher

    return Ros2Publisher(target or "maskstream", take, headers)


KINDS: dict[str, Callable[[str, TakeCommand, Headers], Sink]] = {
    "jsonl": _jsonl,
    "mcap": _mcap,
    "foxglove": _foxglove,
    "zenoh": _zenoh,
    "ros2": _ros2,
}


def open_channels(
    channels: Sequence[Channel], take: TakeCommand, headers: Headers = DEFAULT_HEADERS
) -> list[Sink]:
    """Open all channels, or none if one fails. Raises as `open_channel`."""
    opened: list[Sink] = []
    try:
        for channel in channels:
            opened.append(open_channel(channel, take, headers))
    except BaseException:
        for sink in opened:
            sink.close(complete=False)
        raise
    return opened
