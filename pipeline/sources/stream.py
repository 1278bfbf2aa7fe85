"""Live inputs of FFmpeg: network streams, cameras, screens, standard input."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from threading import Event

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.arrivals import PresentationArrivals, sender_time_s
from maskstream.pipeline.sources.hls import longest_segment_s
from maskstream.pipeline.sources.not_opened import not_opened, reason_of
from maskstream.pipeline.sources.pace import Pace, is_paced
from maskstream.pipeline.sources.packet_feed import CatchUp, PacketFeed
from maskstream.pipeline.sources.patience import Patience
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.recording import (
    FrameRecorder,
    PacketRecorder,
    Recordings,
    is_copied,
)
from maskstream.pipeline.sources.timestamps import Stamp
from maskstream.pipeline.sources.video import VideoReader
from maskstream.pipeline.types import Arrival, Frame, SourceInfo

logger = logging.getLogger(__name__)

CAPTURE_TIME_BASE = Fraction(1, 1_000_000)
_SEGMENTS_MAX = 2.0  # of HLS, that may take to come; a server has 1.5 to offer the next one
_WITHOUT_RATE = {"fpsprobesize": "0"}
_NO_TIMESTAMPS = 0x80  # FFmpeg's flag of formats whose times it makes up from an assumed rate


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A source that reads a live input of FFmpeg and records the arrival time of every frame.

    target: URL, device or another input of `format`. options: of FFmpeg. timeout_s: seconds without
    a packet after which opening or reading fails. has_timestamps: use the input's timestamps;
    otherwise, and where it has none, the capture clock. record: a file for the unchanged packets
    (its suffix chooses the container), or where it cannot hold them for the frames, without loss;
    after a reconnection they go to NAME-2, NAME-3, …. threads: of the decoder. catch_up: how frames
    are skipped when decoding falls behind; None: the input waits, as a pipe does.

    An input that comes in bursts (HLS, a recording over HTTP) is paced by its timestamps. HLS may
    take two segments' time to go on, and a stream of rare frames three times its usual interval, if
    `timeout_s` is shorter (`patience`).
    """

    target: str = field(repr=False)  # it may hold a password
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 5.0
    has_timestamps: bool = True
    record: Path | None = None
    clock: Clock = SYSTEM_CLOCK
    threads: int = 1
    catch_up: CatchUp | None = None
    recordings: Recordings = field(default_factory=Recordings)
    patience: Patience = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", Patience(self.timeout_s))

    @contextmanager
    def open(self) -> Iterator[LiveReader]:
        """Connect and decode the first frame; call it in the thread that iterates.

        Raises:
            SourceNotFoundError: there is no such device.
            UnreadableSourceError: there is no answer, or no video.
            ConfigError: it cannot be recorded to `record`.
        """
        reader = self._connect()
        try:
            yield reader
        finally:
            reader.close()

    def _connect(self) -> LiveReader:
        end_s = self.clock.monotonic() + self.patience.limit_s
        try:
            try:
                return self._reader()
            except (av.error.FFmpegError, UnreadableSourceError):
                was_silent = self.clock.monotonic() >= end_s  # its frames may be rare
                if not (was_silent and self.patience.raise_for_first()):
                    raise
                return self._reader()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise not_opened(self.target, error) from None  # it would show the password

    def _reader(self) -> LiveReader:
        try:
            return LiveReader(self, self._container(self.format))
        except (av.error.InvalidDataError, UnreadableSourceError):
            if self.format is not None or not self.target.lower().startswith("http"):
                raise
            # Images in a row whose boundaries are missing or wrong are found by their markers.
            with suppress(av.error.FFmpegError, SourceError):
                return LiveReader(self, self._container("mjpeg"))
            raise

    def _container(self, format: str | None) -> InputContainer:
        container = self._opened(format)
        if "hls" in container.format.name.split(","):
            segment_s = longest_segment_s(self.target, self.options, self.timeout_s)
            if self.patience.raise_to(_SEGMENTS_MAX * segment_s):
                container.close()
                limit_s = self.patience.limit_s
                logger.info("segments have up to %g s; it stalls after %g s", segment_s, limit_s)
                container = self._opened(format)
        return container

    def _opened(self, format: str | None) -> InputContainer:
        options, limit_s = dict(self.options), self.patience.limit_s
        if self.patience.is_for_rare:  # no frame to estimate a rate by, nor one to lose
            options |= _WITHOUT_RATE
            options.pop("fflags", None)
        container: InputContainer = av.open(
            self.target, format=format, options=options, timeout=(limit_s, limit_s)
        )
        return container


class LiveReader(VideoReader):
    """An opened `LiveStream`: iterate once; ends when the stream ends or stalls.

    ended: the reason, as far as FFmpeg reports it. spare_decoding: skip non-reference frames,
    also while decoding keeps up. It closes the container.
    """

    if_undecodable = "the stream is damaged, or it ended before its first whole frame"

    def __init__(self, source: LiveStream, container: InputContainer) -> None:
        self.ended = "the stream ended"
        self.spare_decoding = False
        self._source = source
        self._container = container
        self._arrivals = PresentationArrivals()
        self._closing = Event()
        self._pace: Pace | None = None
        self._feed: PacketFeed | None = None
        self._packet_recorder: PacketRecorder | None = None
        self._frame_recorder: FrameRecorder | None = None
        try:
            super().__init__(source.target, container, FrameRange(), source.threads)
            no_times = bool(container.format.flags & _NO_TIMESTAMPS)
            if no_times or not source.has_timestamps or self._decoded[0].pts is None:
                self.info = replace(self.info, clock="capture", time_base=CAPTURE_TIME_BASE)
            if source.record is not None and not is_copied(source.record, self.info.codec):
                self._frame_recorder = FrameRecorder(
                    source.record, self._decoded[0], source.recordings
                )
                logger.info("the recording is encoded without loss (FFV1)")
        except BaseException:
            self._disconnect()
            raise

    @property
    def skipped(self) -> int:
        """Frames that were skipped before decoding, to catch up."""
        return self._arrivals.skipped + (0 if self._feed is None else self._feed.skipped)

    @property
    def newest_s(self) -> float | None:
        """Arrival of the newest packet, seconds by the clock for latency; from any thread."""
        newest = None if self._feed is None else self._feed.newest
        return None if newest is None else newest.monotonic_s

    def close(self) -> None:
        """Finish the recording, close the decoder and the connection."""
        super().close()
        self._disconnect()

    def _disconnect(self) -> None:
        self._closing.set()
        if self._feed is None:
            self._release()
        else:
            self._feed.close(self._source.timeout_s, self._release)

    def _release(self) -> None:
        """Close what the demuxer uses."""
        try:
            for recorder in (self._packet_recorder, self._frame_recorder):
                if recorder is not None:
                    recorder.close()
                    self.report.recording_failed = recorder.failed
        finally:
            self._container.close()

    def _demux(self) -> Generator[Packet[VideoStream] | None, None, None]:
        source, decoder = self._source, self._stream.codec_context
        if source.record is not None and is_copied(source.record, decoder.name):
            self._packet_recorder = PacketRecorder(source.record, self._stream, source.recordings)
        if is_paced(self._container, source.target):
            self._pace = Pace(self._time_base, source.clock, self._closing)
        source.patience.connected()
        self._feed = PacketFeed(self._coming(), self._arrived, source.clock, source.catch_up)
        for packet, arrival, late, after_jump in self._feed:
            if after_jump:
                decoder.flush_buffers()
            skipping = late or self.spare_decoding
            decoder.skip_frame = "NONREF" if skipping else "DEFAULT"
            if packet.size:
                self._arrivals.add(packet.pts, arrival, skipping=skipping)
            yield packet
        failure = self._feed.failure
        if isinstance(failure, av.error.FFmpegError):
            self.ended = f"the stream broke off: {reason_of(failure)}"
        elif failure is not None:
            raise failure

    def _coming(self) -> Generator[Packet[VideoStream], None, None]:
        yield from self._container.demux(self._stream)

    def _arrived(self, packet: Packet[VideoStream]) -> Arrival | None:
        """Stamp and record a packet that has come, in the demuxer's thread."""
        if self._pace is not None and not self._pace.wait(packet):
            return None
        clock = self._source.clock
        arrival = Arrival(clock.monotonic(), clock.unix(), ntp_s=sender_time_s(packet))
        if packet.size:
            self._source.patience.note(arrival.monotonic_s)
        if self._packet_recorder is not None and packet.size:
            self._packet_recorder.write(packet)
            self.report.recording_failed = self._packet_recorder.failed
        return arrival

    def _frame(self, index: int, picture: VideoFrame) -> Frame:
        frame = self.frame(index, picture, Stamp(picture.pts, None))
        arrival = self._arrivals.take(picture.pts)
        frame = replace(frame, arrival=arrival)
        if self.info.clock == "capture":
            pts = round(arrival.unix_s / CAPTURE_TIME_BASE)
            frame = replace(frame, pts=pts, time_base=CAPTURE_TIME_BASE)
        if self._frame_recorder is not None:
            self._frame_recorder.write(picture, frame.pts_s or 0.0)
            self.report.recording_failed = self._frame_recorder.failed
        return frame

    def _describe(self, name: str, first: VideoFrame) -> SourceInfo:
        return replace(super()._describe(name, first), frame_count=None, live=True)
