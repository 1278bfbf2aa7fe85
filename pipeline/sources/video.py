"""Source of video files, of any container and codec that FFmpeg reads."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from io import RawIOBase
from pathlib import Path
from typing import Any, Literal, Self

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.sources.checks import check_size, count_damage, not_permitted
from maskstream.pipeline.sources.deinterlace import deinterlaced
from maskstream.pipeline.sources.orientation import Orientation
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.timecode import timecode_of
from maskstream.pipeline.sources.timestamps import DECODING_TIMES_ONLY, PresentationClock, Stamp
from maskstream.pipeline.sources.video_view import VideoView
from maskstream.pipeline.types import Frame, SourceInfo, SourceReport

_PYAV = int(av.__version__.split(".")[0])
# Before 19 a file whose title is not UTF-8 cannot be opened without this; 19 has no such option.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}

# Formats that name other files or addresses; a file that is opened may be a stranger's upload.
_REFERRING = frozenset(
    {"hls", "concat", "dash", "sdp", "rtsp", "rtp", "imf", "webm_dash_manifest", "lavfi", "tty"}
)
_ONLY_FILES = {
    "format_whitelist": ",".join(sorted(av.formats_available - _REFERRING)),
    "protocol_whitelist": "file,pipe",
}
_PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"v=0", b"<?xml", b"<MPD")
# Containers, by FFmpeg's names, that state when the last stream ends instead of how long it is.
_END_NOT_DURATION = frozenset({"matroska", "webm"})
_TAG_DURATION = re.compile(r"(\d+):(\d+):([\d.]+)")  # of a stream, as FFmpeg writes it
_STATED_MIN = Fraction(1, 2)  # of the frames that the duration allows
_TOP_FIRST, _BOTTOM_FIRST = (2, 4), (3, 5)  # AVFieldOrder


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A source that decodes a video file.

    Frame indices count from 0 in presentation order, also where the range skips some; timestamps
    are the container's. Sample aspect ratio and orientation are applied: the width is scaled by the
    ratio, then the frame is rotated and mirrored. If the size changes within the file, frames are
    scaled to the size of the first.

    threads: of the decoder; each one above 1 makes it faster and holds one more frame.
    deinterlace: make whole pictures of interlaced ones, which are otherwise woven. content: opens
    the bytes of a file that is not on this disk; `path` is its name then.
    """

    path: Path
    frame_range: FrameRange = field(default_factory=FrameRange)
    threads: int = 1
    deinterlace: bool = False
    content: Callable[[], RawIOBase] | None = None

    def container(self) -> InputContainer:
        """Open the file, to demux it. Raises `SourceNotFoundError`, `UnreadableSourceError`."""
        return open_container(self.path, self.content)

    @contextmanager
    def open(self) -> Iterator[VideoReader]:
        """Open the file and decode its first frame; call it in the thread that iterates.

        Raises:
            SourceNotFoundError: there is no such file.
            UnreadableSourceError: it has no video that can be decoded.
        """
        with self.container() as container:
            reader = VideoReader(
                str(self.path),
                container,
                self.frame_range,
                self.threads,
                deinterlace=self.deinterlace,
            )
            try:
                yield reader
            finally:
                reader.close()


class WholeVideo:
    """A video without a range, opened when its reader is first used, closed with the context."""

    def __init__(self, source: VideoFile) -> None:
        self._source = replace(source, frame_range=FrameRange())
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def reader(self) -> VideoReader:
        """The opened video. Raises `SourceError`."""
        return self._stack.enter_context(self._source.open())


class VideoReader:
    """An opened video, `VideoFile` or another input of FFmpeg: iterate once.

    A packet that cannot be decoded is counted and skipped; a damaged frame is counted and kept.
    first_pts: as the container states it, of the first frame of the file. if_undecodable: what an
    error says of an input without a frame.
    """

    if_undecodable = "the file is probably damaged or cut short"

    def __init__(
        self,
        name: str,
        container: InputContainer,
        frame_range: FrameRange,
        threads: int = 1,
        *,
        deinterlace: bool = False,
    ) -> None:
        self.report = SourceReport()
        self._deinterlace = deinterlace
        self._jump_s = 0.0  # since the last frame of the range
        self._container = container
        self._timecode = timecode_of(container)
        self._stream = video_stream(name, container)
        self._stream.codec_context.thread_count = threads
        self._stream.codec_context.thread_type = "AUTO"
        self._time_base = _fraction(self._stream.time_base) or Fraction(1)
        self._packets = self._demux()
        self._decoded: deque[VideoFrame] = deque()
        rate = self._rate()
        self._range = frame_range.resolved(rate, self._timecode)
        self.clock = PresentationClock(self._time_base, rate, container.format.name)
        if not self._decode_some():
            raise UnreadableSourceError(
                f"{name} holds no frame that can be decoded"
                f"{''.join(f' ({message})' for message in self.report.messages[:1])}; "
                f"{self.if_undecodable}."
            )
        self.first_pts = self._decoded[0].pts
        self._orientation = Orientation.of(self._decoded[0])
        self.info = self._describe(name, self._decoded[0])

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._range.select(self._frames()):
            self.report.frames += 1
            is_first = self.report.frames == 1
            jump_s, self._jump_s = 0.0 if is_first else self._jump_s, 0.0
            yield frame if jump_s == frame.jump_s else replace(frame, jump_s=jump_s)
        if self.clock.disordered:
            self.report.notes.append(
                f"{self.clock.disordered} timestamps did not increase; each became one tick after "
                "the last"
            )

    def close(self) -> None:
        """Close the decoder; pending packets would keep it alive in a reference cycle."""
        self._packets.close()
        self._decoded.clear()

    def seek(self, pts: int) -> None:
        """Go to a keyframe, regardless of the range; where this leads, pictures must show."""
        try:
            self._container.seek(pts, stream=self._stream)
        except av.error.FFmpegError as error:
            count_damage(self.report, f"seeking failed: {error.strerror}")
        self._packets = self._demux()
        self._decoded.clear()

    def pictures(self) -> Iterator[VideoFrame]:
        """Yield decoded pictures from the current place on, without keeping references."""
        while self._decode_some():
            yield self._decoded.popleft()

    def frame(self, index: int, picture: VideoFrame, stamp: Stamp) -> Frame:
        """A decoded picture as the frame with this index and time."""
        view = VideoView(picture, self._orientation)
        return Frame(
            index,
            stamp.pts,
            self._time_base,
            self.info.size_hw,
            view,
            duration=stamp.duration,
            jump_s=stamp.jump_s,
        )

    def whole(self, pictures: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, VideoFrame]]:
        """Each picture as decoded and as shown: deinterlaced, if that is asked for."""
        if self._deinterlace:
            return deinterlaced(pictures)
        return ((picture, picture) for picture in pictures)

    def _frames(self) -> Iterator[Frame]:
        if self._deinterlace:
            for index, (decoded, shown) in enumerate(deinterlaced(self.pictures())):
                yield self.frame(index, shown, self._stamp(index, decoded))
            return
        index = 0
        while self._decode_some():
            yield self._frame(index, self._decoded.popleft())
            index += 1

    def _frame(self, index: int, picture: VideoFrame) -> Frame:
        return self.frame(index, picture, self._stamp(index, picture))

    def _stamp(self, index: int, picture: VideoFrame) -> Stamp:
        stamp = self.clock.stamp(picture)
        if stamp.jump_s:
            self._jump_s += stamp.jump_s
            self.report.notes.append(
                f"the recording starts anew at frame {index} (its clock jumps by "
                f"{stamp.jump_s:+.2f} s); times go on from the frame before"
            )
        return stamp

    def _decode_some(self) -> bool:
        """Decode until `_decoded` has a frame; False at the end of the stream."""
        while not self._decoded:
            try:
                packet = next(self._packets)
            except StopIteration:
                return False
            self._decoded.extend(self._decode(packet))
        return True

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            images = self._stream.decode(packet)
        except av.error.FFmpegError as error:
            count_damage(self.report, f"{self._when(packet)}: {error.strerror}")
            return []
        for image in images:
            if image.is_corrupt:
                count_damage(self.report, f"{self._when(image)}: the frame is damaged")
        return images

    def _demux(self) -> Generator[Packet[VideoStream] | None, None, None]:
        """Packets of the stream; the last one flushes the decoder."""
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            count_damage(self.report, f"reading stopped early: {error.strerror}")
            yield None

    def _when(self, item: Packet[VideoStream] | VideoFrame | None) -> str:
        if item is None or item.pts is None:
            return "at an unknown time"
        return f"at {float(item.pts * self._time_base):.3f} s"

    def _describe(self, name: str, first: VideoFrame) -> SourceInfo:
        rate = self._rate()
        sample_aspect = _fraction(self._stream.sample_aspect_ratio) or Fraction(1)
        field_order = _field_order(self._stream, first)
        if field_order:
            side = {"t": "top", "b": "bottom"}[field_order]
            done = (
                "its pictures are deinterlaced (bwdif)"
                if self._deinterlace
                else "its fields are woven; --deinterlace makes whole pictures of them"
            )
            self.report.notes.append(f"the video is interlaced ({side} field first): {done}")
        stretched = first.height, max(1, round(first.width * sample_aspect))
        size_hw = self._orientation.size_hw(stretched)
        check_size(name, size_hw)
        return SourceInfo(
            name=name,
            size_hw=size_hw,
            time_base=self._time_base,
            rate=rate,
            frame_count=self._range.count(self._total(rate), rate),
            rotation_deg=self._orientation.rotation_deg,
            mirrored=self._orientation.mirrored,
            timecode=None if self._timecode is None else str(self._timecode),
            indices=self._range.indices(self.stated_count),
            sample_aspect=sample_aspect,
            codec=self._stream.codec_context.name,
            field_order="" if self._deinterlace else field_order,
        )

    @property
    def stated_count(self) -> int | None:
        """Number of frames that the container states, if it does."""
        stated, rate = self._stream.frames, self._rate()
        if not stated or self._states_only_decoding:
            return None
        duration_s = self._duration_s()
        expected = duration_s * rate if rate and duration_s else stated
        # A fragmented MP4 may state the frames of its first fragment.
        return None if stated < _STATED_MIN * expected else stated

    @property
    def _states_only_decoding(self) -> bool:
        return bool(DECODING_TIMES_ONLY & set(self._container.format.name.split(",")))

    def _rate(self) -> Fraction | None:
        """Frames per second; AVI's average counts ticks without a picture, too."""
        average = _fraction(self._stream.average_rate)
        return _fraction(self._stream.guessed_rate) if self._states_only_decoding else average

    def _total(self, rate: Fraction | None) -> int | None:
        """Number of frames: the container's, else estimated from the duration."""
        if self.stated_count:
            return self.stated_count
        duration_s = self._duration_s()
        return round(duration_s * rate) if rate and duration_s else None

    def _duration_s(self) -> Fraction | None:
        """Duration of the video, or else of the longest stream."""
        if self._stream.duration:
            return self._stream.duration * self._time_base
        if not self._container.duration:
            return None
        end_s = Fraction(self._container.duration, av.time_base)
        if not _END_NOT_DURATION & set(self._container.format.name.split(",")):
            return end_s
        if tag := _TAG_DURATION.fullmatch(self._stream.metadata.get("DURATION", "")):
            end_s = 3600 * int(tag[1]) + 60 * int(tag[2]) + Fraction(tag[3])
        return end_s - Fraction(self._container.start_time or 0, av.time_base)


def open_container(path: Path, content: Callable[[], RawIOBase] | None = None) -> InputContainer:
    """Open a media file. Raises `SourceNotFoundError`, `UnreadableSourceError`.

    content: see `VideoFile`.
    """
    try:
        if content is None and path.is_file() and path.stat().st_size == 0:
            raise UnreadableSourceError(f"{path} is empty (0 bytes); the recording was not saved.")
        # An absolute path: FFmpeg would read `take:1.mp4` as a protocol.
        target = str(path.absolute()) if content is None else content()
        container: InputContainer = av.open(target, options=_ONLY_FILES, **_ANY_TAGS)
        return container
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {path}.") from error
    except PermissionError as error:
        raise UnreadableSourceError(not_permitted(path)) from error
    except IsADirectoryError as error:
        raise UnreadableSourceError(f"{path} is a folder, not a video.") from error
    except (av.error.FFmpegError, OSError) as error:
        if content is None and _is_playlist(path):
            raise UnreadableSourceError(
                f"{path} is a playlist, which names other files; open the video itself, or a "
                "stream with `live`."
            ) from error
        raise UnreadableSourceError(
            f"{path} cannot be opened as a video ({error.strerror}); it is not a video, or it is "
            "damaged or was cut short while recording."
        ) from error


def _is_playlist(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf\r\n ").startswith(_PLAYLISTS)
    except OSError:
        return False


def video_stream(name: str, container: InputContainer) -> VideoStream:
    """The stream of a file that is shown. Raises `UnreadableSourceError`."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = {stream.type for stream in container.streams} - {"video"}  # without cover images
        raise UnreadableSourceError(
            f"{name} holds no video stream, only {', '.join(sorted(others)) or 'a still image'}."
        )
    stream = container.streams.best("video")
    stream = stream if stream in streams else streams[0]
    if stream.codec_context is None:
        raise UnreadableSourceError(f"{name} uses a video codec that this FFmpeg cannot decode.")
    check_size(name, (stream.codec_context.height, stream.codec_context.width))
    return stream


def _field_order(stream: VideoStream, first: VideoFrame) -> Literal["t", "b", ""]:
    """Which field of an interlaced video is shown first; "" for progressive video."""
    order = int(getattr(stream.codec_context, "field_order", 0))  # from PyAV 16 on
    if order in _BOTTOM_FIRST:
        return "b"
    return "t" if order in _TOP_FIRST or first.interlaced_frame else ""


def _fraction(rational: Fraction | None) -> Fraction | None:
    """Convert a rational of PyAV; unset is None before version 19, then a falsy `AVRational`."""
    return Fraction(rational.numerator, rational.denominator) if rational else None
