"""Which frames a run will give, known before it, so that prompts on others are refused at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.packet_index import PacketIndex
from maskstream.pipeline.sources.position import Position, Stamped
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.sources.video import VideoFile
from maskstream.pipeline.types import Source, SourceInfo


@dataclass(frozen=True, slots=True)
class _Packet:
    """A frame that is not decoded."""

    index: int
    pts: int | None
    time_base: Fraction


def known_frames(source: Source, info: SourceInfo, last: int) -> Sequence[int] | None:
    """Frame indices of a run, ascending, at least up to the first one after `last`; None: unknown.

    Of a video that states no number of frames, or whose range is a time, packets are counted as far
    as that, or frames decoded where packets are no frames (MPEG-TS and others without an index).

    Raises:
        ConfigError: the range holds no frame.
        SourceError: the source cannot be read.
    """
    if not isinstance(source, VideoFile):
        return info.indices
    with source.open() as reader:
        if info.indices is not None and reader.stated_count is not None:
            return info.indices
        counted = _count_packets(source, info, reader.first_pts, last)
        return _up_to(last, reader) if counted is None else counted


def _count_packets(
    source: VideoFile, info: SourceInfo, first_pts: int | None, last: int
) -> list[int] | None:
    timecode = Timecode.parse(info.timecode or "")
    frame_range = source.frame_range.resolved(info.rate, timecode)
    with closing(PacketIndex(source, first_pts)) as packets:
        listed = (_Packet(n, pts, info.time_base) for n, pts in enumerate(packets.times()))
        try:
            found = _up_to(last, frame_range.select(listed))
        except ConfigError:
            if packets.is_reliable(0):
                raise
            return None
        return found if packets.is_reliable(0) else None


def _up_to(last: int, frames: Iterable[Stamped]) -> list[int]:
    found = []
    for frame in frames:
        found.append(frame.index)
        if frame.index > last:
            break
    return found


def frame_at(info: SourceInfo, text: str) -> int:
    """Frame index that a timecode names, such as `00:00:03:12`, in the source described by `info`.

    Raises:
        ConfigError: the text is no timecode, or the source has no frame rate.
    """
    position = Position.parse(text)
    if isinstance(position.value, Fraction):
        raise ConfigError(f"{text!r} is a time; write a frame number or a timecode (00:00:03:12).")
    first = Timecode.parse(info.timecode or "")
    index = position.resolved(info.rate, first).value
    if not isinstance(index, int):
        raise ConfigError(f"the {position} needs a frame rate, which {info.name} does not state.")
    return index
