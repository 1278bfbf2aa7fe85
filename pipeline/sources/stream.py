"""Live inputs of FFmpeg: network streams, cameras, screens, raw frames on standard input."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import SourceError, UnreadableSourceError
from maskstream.pipeline.sources.not_opened import not_opened, reason_of
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
_NO_TIMESTAMPS = 0x80  # FFmpeg's flag of formats whose times it makes up from an assumed rate
_MAX_STAMPS = 256  # packets whose frames are not decoded yet


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A source that reads a live input of FFmpeg and records the arrival time of every frame.

    target: URL, device or another input of `format`. options: of FFmpeg. timeout_s: seconds without
    a packet after which opening or reading fails. has_timestamps: use the input's timestamps;
    otherwise, and where it has none, the capture clock. record: a file for the unchanged packets
    (its suffix chooses the container), or where it cannot hold them for the frames, without loss;
    after a reconnection they go to NAME-2, NAME-3, ….
    """

    target: str = field(repr=False)  # it may hold a password
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 5.0
    has_timestamps: bool = True
    record: Path | None = None
    clock: Clock = SYSTEM_CLOCK
    recordings: Recordings = field(default_factory=Recordings)

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
        try:
            try:
                return self._reader(self.format)
            except (av.error.InvalidDataError, UnreadableSourceError):
                if self.format is not None or not self.target.lower().startswith("http"):
                    raise
                # Images in a row whose boundaries are missing or wrong are found by their markers.
                with suppress(av.error.FFmpegError, SourceError):
                    return self._reader("mjpeg")
                raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise not_opened(self.target, error) from None  # it would show the password

    def _reader(self, format: str | None) -> LiveReader:
        container: InputContainer = av.open(
            self.target,
            format=format,
            options=dict(self.options),
            timeout=(self.timeout_s, self.timeout_s),
        )
        try:
            return LiveReader(self, container)
        except BaseException:
            container.close()
            raise


class LiveReader(VideoReader):
    """An opened `LiveStream`: iterate once; ends when the stream ends or stalls.

    ended: the reason, as far as FFmpeg reports it.
    """

    if_undecodable = "the stream is damaged, or it ended before its first whole frame"

    def __init__(self, source: LiveStream, container: InputContainer) -> None:
        self.ended = "the stream ended"
        self._source = source
        self._stamps: OrderedDict[int | None, Arrival] = OrderedDict()
        self._arrival = _now(source.clock)
        self._packet_recorder: PacketRecorder | None = None
        self._frame_recorder: FrameRecorder | None = None
        super().__init__(source.target, container, FrameRange())
        no_times = bool(container.format.flags & _NO_TIMESTAMPS)
        if no_times or not source.has_timestamps or self._decoded[0].pts is None:
            self.info = replace(self.info, clock="capture", time_base=CAPTURE_TIME_BASE)
        if source.record is not None and not is_copied(source.record, self.info.codec):
            self._frame_recorder = FrameRecorder(source.record, self._decoded[0], source.recordings)
            logger.info("the recording is encoded without loss (FFV1)")

    def close(self) -> None:
        """Finish the recording, close the decoder and the connection."""
        super().close()
        try:
            for recorder in (self._packet_recorder, self._frame_recorder):
                if recorder is not None:
                    recorder.close()
                    self.report.recording_failed = recorder.failed
        finally:
            self._container.close()

    def _demux(self) -> Generator[Packet[VideoStream] | None, None, None]:
        packets = self._container.demux(self._stream)
        record = self._source.record
        if record is not None and is_copied(record, self._stream.codec_context.name):
            self._packet_recorder = PacketRecorder(record, self._stream, self._source.recordings)
        try:
            for packet in packets:
                self._arrival = self._stamps[packet.pts] = _now(self._source.clock)
                if len(self._stamps) > _MAX_STAMPS:
                    self._stamps.popitem(last=False)
                yield packet
                if self._packet_recorder is not None and packet.size:
                    self._packet_recorder.write(packet)
                    self.report.recording_failed = self._packet_recorder.failed
        except av.error.FFmpegError as error:
            self.ended = f"the stream broke off: {reason_of(error)}"

    def _frame(self, index: int, picture: VideoFrame) -> Frame:
        frame = self.frame(index, picture, Stamp(picture.pts, None))
        arrival = self._stamps.pop(picture.pts, self._arrival)
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


def _now(clock: Clock) -> Arrival:
    return Arrival(clock.monotonic(), clock.unix())
