"""Frame numbers of a video by counting its packets, which is fast but not right for every file."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from maskstream.pipeline.sources.timestamps import Stamp
from maskstream.pipeline.sources.video import VideoFile, WholeVideo, open_container, video_stream
from maskstream.pipeline.types import Frame

# Containers that index their packets and state their times, by FFmpeg's names.
_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})
_HIDDEN_FRAMES = frozenset({"vp8"})  # codecs with packets that are not shown
_COUNTED_BYTES = 1 << 26  # read to count the packets of a file
_REORDERED = 32  # packets between decoding and presentation, at most


class Anchor(NamedTuple):
    """A keyframe to seek to: the number of its frame, and its time in ticks of the stream."""

    number: int
    pts: int


class PacketIndex:
    """Keyframes of a video, found by demuxing as far as it is needed.

    first_pts: time of the first frame that can be decoded; a packet before it is no frame.
    """

    def __init__(self, source: VideoFile, first_pts: int | None) -> None:
        self._first_pts = first_pts
        self._container = source.container()
        self._packets = _packets(source.path, self._container)
        names = set(self._container.format.name.split(","))
        codec = video_stream(str(source.path), self._container).codec_context.name
        self._reliable = bool(names & _INDEXED) and codec not in _HIDDEN_FRAMES
        self._ended = False
        self._anchors: list[Anchor] = []
        self._count = 0  # packets so far that become frames
        self._open: Anchor | None = None  # the last keyframe, whose leading frames may follow
        self._last_dts: int | None = None

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._ended = True

    def distrust(self) -> None:
        """A frame was not where it was expected: count no longer."""
        self._reliable = False

    def is_reliable(self, index: int) -> bool:
        """Whether packets up to a frame can be counted as frames."""
        while self._reliable and not self._ended and self._count <= index + 1:
            self._read_one()
        return self._reliable

    def up_to(self, index: int) -> list[Anchor]:
        """Keyframes at or before a frame, ascending; empty if packets cannot be counted."""
        if not self.is_reliable(index):
            return []
        found = self._anchors + ([self._open] if self._open is not None else [])
        return [anchor for anchor in found if anchor.number <= index]

    def times(self) -> Iterator[int]:
        """Times of the frames in order, in ticks; ends early if packets cannot be counted."""
        waiting: list[int] = []
        while self._reliable and not self._ended:
            pts = self._read_one()
            if pts is not None:
                heappush(waiting, pts)
            if len(waiting) > _REORDERED:
                yield heappop(waiting)
        while self._reliable and waiting:
            yield heappop(waiting)

    def _read_one(self) -> int | None:
        """Count the next packet; gives its time if it is a frame's."""
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return None
        # Matroska states no decoding times; FFmpeg leaves out the first ones.
        dts, last = packet.dts, self._last_dts
        unordered = dts is not None and last is not None and dts <= last
        if packet.pts is None or packet.is_corrupt or unordered:
            self._reliable = False
            return None
        self._last_dts = dts
        if packet.is_discard:
            return None
        if self._first_pts is None or packet.pts < self._first_pts:
            self._reliable = False
            return None
        if packet.is_keyframe:
            if self._open is not None:
                self._anchors.append(self._open)
            self._open = Anchor(self._count, packet.pts)
        elif self._open is not None and packet.pts < self._open.pts:
            self._open = self._open._replace(number=self._open.number + 1)
        self._count += 1
        return packet.pts


class CountedReader(WholeVideo):
    """Reads frames of a video from any of them on, as an index counts them."""

    def __init__(self, source: VideoFile, index: PacketIndex) -> None:
        super().__init__(source)
        self._index = index

    def frames(self, first: int) -> Iterator[Frame]:
        """The frames from `first` on; ends early where the file is not as it was counted."""
        anchors = self._index.up_to(first)
        if not anchors:
            return
        number, pts = anchors[-1]
        reader = self.reader
        damage = reader.report.corrupt_packets
        reader.seek(pts)
        pictures = reader.pictures()
        found = next((p for p in pictures if p.pts is not None and p.pts >= pts), None)
        while found is not None and reader.report.corrupt_packets == damage:
            if number == anchors[-1].number and found.pts != pts:
                break
            stamp = Stamp(found.pts, found.duration or reader.clock.interval)
            if number >= first:
                yield reader.frame(number, found, stamp)
            number += 1
            found = next(pictures, None)
        else:
            return
        self._index.distrust()


def count_packets(path: Path) -> int | None:
    """Number of packets that become frames; of long files estimated from their beginning."""
    with open_container(path) as container:
        count = size = 0
        for packet in _packets(path, container):
            count += not packet.is_discard
            size = max(size, packet.pos or 0)
            if size > _COUNTED_BYTES:
                return round(count * path.stat().st_size / size)
    return count or None


def _packets(path: Path, container: InputContainer) -> Iterator[Packet[VideoStream]]:
    """Packets of the video, as far as they can be read."""
    try:
        for packet in container.demux(video_stream(str(path), container)):
            if packet.size:
                yield packet
    except av.error.FFmpegError:
        return
