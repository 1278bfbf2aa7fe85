"""Source of video files, of any container and codec that FFmpeg reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import resized
from maskstream.pipeline.sources.checks import check_size, count_damage
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.sources.timestamps import PresentationClock, Stamp
from maskstream.pipeline.types import Frame, GrayImage, RgbImage, SizeHW, SourceInfo, SourceReport

_PYAV = int(av.__version__.split(".")[0])
# For every `reformat`. From PyAV 17 on swscale uses all cores by default, and with several threads
# it sometimes computes wrong pixels (FFmpeg 8: to 10 bits, at an odd height).
ONE_THREAD: dict[str, Any] = {"threads": 1} if _PYAV >= 17 else {}
# Before 19 a file whose title is not UTF-8 cannot be opened without this; 19 has no such option.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}

_ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A source that decodes a video file.

    Frame indices count from 0 in presentation order, also where the range skips some; timestamps
    are the container's. Sample aspect ratio and rotation are applied: the width is scaled by the
    ratio, then the frame is rotated. If the size changes within the file, frames are scaled to the
    size of the first.

    threads: of the decoder; each one above 1 makes it faster and holds one more frame.
    """

    path: Path
    frame_range: FrameRange = field(default_factory=FrameRange)
    threads: int = 1

    @contextmanager
    def open(self) -> Iterator[VideoReader]:
        """Open the file and decode its first frame; call it in the thread that iterates.

        Raises:
            SourceNotFoundError: there is no such file.
            UnreadableSourceError: it has no video that can be decoded.
        """
        with open_container(self.path) as container:
            reader = VideoReader(str(self.path), container, self.frame_range, self.threads)
            try:
                yield reader
            finally:
                reader.close()


class VideoReader:
    """An opened video, `VideoFile` or another input of FFmpeg: iterate once.

    A packet that cannot be decoded is counted and skipped; a damaged frame is counted and kept.
    """

    def __init__(
        self, name: str, container: InputContainer, frame_range: FrameRange, threads: int = 1
    ) -> None:
        self.report = SourceReport()
        self._container = container
        self._range = frame_range
        self._stream = video_stream(name, container)
        self._stream.codec_context.thread_count = threads
        self._stream.codec_context.thread_type = "AUTO"
        self._time_base = _fraction(self._stream.time_base) or Fraction(1)
        self._packets = self._demux()
        self._decoded: deque[VideoFrame] = deque()
        rate = _fraction(self._stream.average_rate)
        self.clock = PresentationClock(self._time_base, rate, container.format.name)
        if not self._decode_some():
            raise UnreadableSourceError(
                f"{name} holds no frame that can be decoded"
                f"{''.join(f' ({message})' for message in self.report.messages[:1])}; the file is "
                "probably damaged or cut short."
            )
        self.info = self._describe(name, self._decoded[0])

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._range.select(self._frames()):
            self.report.frames += 1
            yield frame

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
        view = VideoView(picture, self.info.rotation_deg // 90)
        return Frame(
            index,
            stamp.pts,
            self._time_base,
            self.info.size_hw,
            view,
            duration=stamp.duration,
            jump_s=stamp.jump_s,
        )

    def _frames(self) -> Iterator[Frame]:
        index = 0
        while self._decode_some():
            yield self._frame(index, self._decoded.popleft())
            index += 1

    def _frame(self, index: int, picture: VideoFrame) -> Frame:
        return self.frame(index, picture, self.clock.stamp(picture))

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
        rate = _fraction(self._stream.average_rate)
        sample_aspect = _fraction(self._stream.sample_aspect_ratio) or Fraction(1)
        turns = round(first.rotation / 90) % 4
        stretched = first.height, max(1, round(first.width * sample_aspect))
        size_hw = stretched[::-1] if turns % 2 else stretched
        check_size(name, size_hw)
        return SourceInfo(
            name=name,
            size_hw=size_hw,
            time_base=self._time_base,
            rate=rate,
            frame_count=self._range.count(self._total(rate), rate),
            rotation_deg=90 * turns,
            sample_aspect=sample_aspect,
            codec=self._stream.codec_context.name,
        )

    def _total(self, rate: Fraction | None) -> int | None:
        """Number of frames: the container's, else estimated from its duration."""
        if self._stream.frames:
            return self._stream.frames
        if self._stream.duration:
            duration_s = self._stream.duration * self._time_base
        elif self._container.duration:
            duration_s = Fraction(self._container.duration, av.time_base)
        else:
            return None
        return round(duration_s * rate) if rate else None


@dataclass(frozen=True, slots=True)
class VideoView:
    """A `PixelView` that converts a decoded frame directly to the requested size.

    turns: quarter turns, counterclockwise, from the stored to the displayed image.
    """

    image: VideoFrame
    turns: int

    def rgb(self, size_hw: SizeHW) -> RgbImage:
        """RGB uint8 [H, W, 3] of the displayed image at `size_hw`."""
        return self._displayed(size_hw, "rgb24")

    def gray(self, size_hw: SizeHW) -> GrayImage:
        """Full-range luma uint8 [H, W] of the displayed image at `size_hw`."""
        return self._displayed(size_hw, "gray")

    def _displayed(self, size_hw: SizeHW, pixel_format: str) -> RgbImage:
        stored = _scaled(self.image, size_hw[::-1] if self.turns % 2 else size_hw, pixel_format)
        if not self.turns:
            return np.array(stored, order="C")  # `stored` may share the decoder's memory
        return np.asarray(cv2.rotate(stored, _ROTATIONS[self.turns]), np.uint8)


def _scaled(image: VideoFrame, size_hw: SizeHW, pixel_format: str) -> RgbImage:
    try:
        return _converted(image, size_hw, pixel_format)
    except av.error.FFmpegError:  # swscale cannot enlarge a line to thousands of pixels
        return resized(_converted(image, (image.height, image.width), pixel_format), size_hw)


def _converted(image: VideoFrame, size_hw: SizeHW, pixel_format: str) -> RgbImage:
    """Scale and convert by swscale; the result may share memory with `image`."""
    height, width = size_hw
    shrinks = height <= image.height and width <= image.width
    # With the same matrix on both sides swscale copies the luma; otherwise it converts through RGB.
    matrix = Colorspace.ITU601 if pixel_format == "gray" else None
    # A new reformatter, because the one that PyAV 18 keeps on a frame holds megabytes.
    converted = VideoReformatter().reformat(
        image,
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
        src_color_range=image.color_range,
        dst_color_range=ColorRange.JPEG,
        **ONE_THREAD,
    )
    return np.asarray(converted.to_ndarray(), np.uint8)


def open_container(path: Path) -> InputContainer:
    """Open a media file. Raises `SourceNotFoundError`, `UnreadableSourceError`."""
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise UnreadableSourceError(f"{path} is empty (0 bytes); the recording was not saved.")
        # An absolute path: FFmpeg would read `take:1.mp4` as a protocol.
        container: InputContainer = av.open(str(path.absolute()), **_ANY_TAGS)
        return container
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {path}.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableSourceError(
            f"{path} cannot be opened as a video ({error.strerror}); it is not a video, or it is "
            "damaged or was cut short while recording."
        ) from error


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


def _fraction(rational: Fraction | None) -> Fraction | None:
    """Convert a rational of PyAV; unset is None before version 19, then a falsy `AVRational`."""
    return Fraction(rational.numerator, rational.denominator) if rational else None
