"""Audio of the source in exported videos: copied, or transcoded to what the container allows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
from av.audio.resampler import AudioResampler
from av.container import OutputContainer
from av.packet import Packet

from maskstream.pipeline.sources.video import open_container

_log = logging.getLogger(__name__)

# Codecs that editors and players support, fewer than FFmpeg can mux into these files.
_TAKEN = {
    ".mov": {"aac", "alac", "mp3", "ac3", "eac3"},
    ".mp4": {"aac", "alac", "mp3", "ac3", "eac3"},
    ".webm": {"opus", "vorbis"},
}
_PCM = {".mov", ".mkv"}
_INSTEAD = {".mov": "pcm_s16le", ".mp4": "aac", ".webm": "libopus", ".mkv": "flac"}
_OPUS_RATE_HZ = 48000
_LAYOUTS = {
    1: "mono",
    2: "stereo",
    6: "5.1",
    8: "7.1",
}  # by channel count: PCM may have no layout name
# A step between packets that means that a recording starts anew; see `PresentationClock`.
_BACK_S, _FORWARD_S = Fraction(1, 10), Fraction(10)
_STARTS_AT_ZERO = {".webm", ".mkv"}  # an earlier packet would shift the video there


class _Track(Protocol):
    """One audio stream."""

    def packets(self, packet: Packet[Any], origin_s: Fraction) -> Iterator[Packet[Any]]:
        """Yield packets to write for a source packet, shifted back by `origin_s`."""
        ...

    def rest(self) -> Iterator[Packet[Any]]:
        """Yield the packets to write after the last one."""
        ...


class Soundtrack:
    """All audio streams of a video, synchronous with the written frames.

    Damaged audio ends at the damage, with a warning. Where a recording starts anew, the audio is
    moved as the frames are. restarts_s: as in `SourceVideo`; it grows while frames are read.
    """

    def __init__(
        self,
        video: Path | None,
        container: OutputContainer,
        suffix: str,
        restarts_s: Sequence[Fraction] = (),
    ) -> None:
        self._restarts_s = restarts_s
        self._restarted: dict[int, int] = {}  # how often each stream started anew
        self._written_s: dict[int, Fraction] = {}  # time of each stream's last packet, moved
        self._last_s: dict[int, Fraction] = {}  # time of each stream's last packet, as stated
        self._stack = ExitStack()
        self._container = container
        self._tracks: dict[int, _Track] = {}
        self._packets: Iterator[Packet[Any]] = iter(())
        self._waiting: Packet[Any] | None = None
        self._not_before_zero = suffix in _STARTS_AT_ZERO
        if video is None:
            return
        opened = self._stack.enter_context(open_container(video))
        streams = [s for s in opened.streams.audio if s.codec_context is not None]
        for stream in streams:
            name = stream.codec_context.name
            taken = _TAKEN.get(suffix)
            is_pcm = name.startswith("pcm_")
            if suffix in _PCM if is_pcm else taken is None or name in taken:
                self._tracks[stream.index] = _Copied(container, stream)
            else:
                self._tracks[stream.index] = _Encoded(container, stream, _INSTEAD[suffix])
        if streams:
            self._packets = opened.demux(*streams)

    def write(self, start_s: Fraction | None, end_s: Fraction | None, origin_s: Fraction) -> None:
        """Write packets that start from `start_s` (None: the beginning) up to `end_s`, source time.

        origin_s: source time that is 0 in the file. Raises `FFmpegError`, `OSError`.
        """
        while (packet := self._next()) is not None:
            restarts = self._restarts_before(packet)
            if restarts is None and end_s is None:  # only the sound jumps back
                continue
            if restarts is None:
                self._waiting = packet
                return
            shift_s = sum(self._restarts_s[:restarts], Fraction(0))
            begins_s = _stated_s(packet) + shift_s
            if end_s is not None and begins_s >= end_s:
                self._waiting = packet
                return
            stream = packet.stream.index
            self._restarted[stream], self._last_s[stream] = restarts, _stated_s(packet)
            if begins_s <= self._written_s.get(stream, begins_s - 1):
                continue  # the recording before goes on under this one
            self._written_s[stream] = begins_s
            too_early = self._not_before_zero and begins_s < origin_s
            if too_early or (start_s is not None and begins_s < start_s):
                continue
            for made in self._tracks[stream].packets(packet, origin_s - shift_s):
                self._container.mux(made)

    def finish(self) -> None:
        """Flush the encoders. Raises `FFmpegError`, `OSError`."""
        for track in self._tracks.values():
            for made in track.rest():
                self._container.mux(made)

    def close(self) -> None:
        """Close the source."""
        self._packets = iter(())
        self._waiting = None
        self._stack.close()

    def _restarts_before(self, packet: Packet[Any]) -> int | None:
        """How often the recording started anew before a packet; None if the frames have not yet."""
        stream, stated_s = packet.stream.index, _stated_s(packet)
        count = self._restarted.get(stream, 0)
        last_s = self._last_s.get(stream, stated_s)
        is_known = count < len(self._restarts_s)
        if stated_s < last_s - _BACK_S:
            return count + 1 if is_known else None
        return count + (is_known and stated_s > last_s + _FORWARD_S)

    def _next(self) -> Packet[Any] | None:
        packet, self._waiting = self._waiting, None
        while packet is None or packet.pts is None or not packet.size:
            try:
                packet = next(self._packets)
            except StopIteration:
                return None
            except av.error.FFmpegError as error:
                _log.warning("the audio ends early, it cannot be read: %s", error.strerror)
                return None
        return packet


def _stated_s(packet: Packet[Any]) -> Fraction:
    return Fraction(packet.pts or 0) * packet.time_base


class _Copied:
    """A stream whose packets are copied unchanged."""

    def __init__(self, container: OutputContainer, stream: Any) -> None:
        self._stream = container.add_stream_from_template(stream)

    def packets(self, packet: Packet[Any], origin_s: Fraction) -> Iterator[Packet[Any]]:
        """Yield the packet itself."""
        shift = round(origin_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = self._stream
        yield packet

    def rest(self) -> Iterator[Packet[Any]]:
        """Yield nothing."""
        return iter(())


class _Encoded:
    """A stream that is transcoded."""

    def __init__(self, container: OutputContainer, stream: Any, codec: str) -> None:
        self._source = stream
        rate = _OPUS_RATE_HZ if codec == "libopus" else stream.rate
        layout = _LAYOUTS.get(stream.layout.nb_channels, "stereo")
        self._stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        self._resampler: AudioResampler | None = None
        self._shift_s = Fraction(0)

    def packets(self, packet: Packet[Any], origin_s: Fraction) -> Iterator[Packet[Any]]:
        """Yield the encoder's packets."""
        self._shift_s = origin_s
        try:
            decoded = self._source.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            _log.warning("a damaged audio packet is skipped: %s", error.strerror)
            return
        for frame in decoded:
            yield from self._encode(frame)

    def rest(self) -> Iterator[Packet[Any]]:
        """Flush the resampler and the encoder."""
        if self._resampler is None:
            return
        for frame in self._source.codec_context.decode(None):
            yield from self._encode(frame)
        yield from self._encode(None)
        yield from self._stream.encode(None)

    def _encode(self, frame: Any) -> Iterator[Packet[Any]]:
        context = self._stream.codec_context
        if self._resampler is None:
            if not context.is_open:
                context.open()
            self._resampler = AudioResampler(
                context.format, context.layout, context.rate, context.frame_size or None
            )
        if frame is not None and frame.pts is not None:
            frame.pts -= round(self._shift_s / frame.time_base)
        for made in self._resampler.resample(frame):
            yield from self._stream.encode(made)
