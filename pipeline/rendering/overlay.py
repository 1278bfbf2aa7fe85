"""Sink that writes a video with masks, boxes and ids drawn on it."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.rendering.draw import draw
from maskstream.pipeline.sources.video_view import ONE_THREAD
from maskstream.pipeline.types import Frame, FrameResult, SourceInfo

_CODEC, _CODEC_OPTIONS = "libx264", {"crf": "18", "preset": "veryfast"}
_DEFAULT_RATE = Fraction(25)


class OverlayVideo:
    """A sink that writes an H.264 mp4 of the frames with masks, boxes and ids.

    Timestamps are the source's from its first frame on, or computed from its rate where it has
    none; the last frame keeps its duration. An odd last row or column is cropped. The file gets its
    name when it is finished. Raises `StoreError`.
    """

    def __init__(self, path: Path, info: SourceInfo) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        rate = info.rate or _DEFAULT_RATE
        self._time_base = info.time_base if info.rate or info.time_base < 1 else 1 / rate
        self._ticks_a_frame = max(1, round(1 / (rate * self._time_base)))
        self._height, self._width = (max(2, side - side % 2) for side in info.size_hw)
        self._first_pts = 0
        self._last_pts: int | None = None
        self._last_duration = self._ticks_a_frame
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._part), "w", format="mp4")
            self._stream = self._add_stream(rate)
        except (OSError, av.error.FFmpegError) as error:
            raise self._unwritable(error) from error

    def _add_stream(self, rate: Fraction) -> Any:
        stream: Any = self._container.add_stream(_CODEC, rate=rate, options=_CODEC_OPTIONS)
        stream.codec_context.thread_count = 1  # leaves the other cores to the models
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._time_base
        stream.codec_context.color_range, stream.codec_context.colorspace = 1, 1  # limited, BT.709
        stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        return stream

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Draw and encode one frame."""
        drawn = draw(frame.rgb(result.labels.shape), result)
        even = np.zeros((self._height, self._width, 3), np.uint8)
        part = drawn[: self._height, : self._width]
        even[: part.shape[0], : part.shape[1]] = part
        image = av.VideoFrame.from_ndarray(even, format="rgb24")
        image = image.reformat(format="yuv420p", dst_colorspace="itu709", **ONE_THREAD)
        image.pts, image.time_base = self._pts(result), self._time_base
        self._last_duration = frame.duration or self._ticks_a_frame
        self._encode(image)

    def idle(self) -> None:
        """Does nothing: the file is written at the end."""

    def close(self, *, complete: bool) -> None:
        """Finish the file; without any frame there is no file."""
        written = self._last_pts is not None
        try:
            if written:
                self._encode(None)
            self._container.close()
            if written:
                os.replace(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)
        except (OSError, av.error.FFmpegError) as error:
            raise self._unwritable(error) from error

    def _pts(self, result: FrameResult) -> int:
        """The result's timestamp, or the next at the source's rate; strictly increasing."""
        last = self._last_pts
        if last is None:
            self._first_pts = result.pts or 0
            pts = 0
        elif result.pts is None:
            pts = last + self._ticks_a_frame
        else:
            pts = max(result.pts - self._first_pts, last + 1)
        self._last_pts = pts
        return pts

    def _encode(self, image: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(image):
                if packet.pts == self._last_pts:
                    packet.duration = self._last_duration
                self._container.mux(packet)
        except (OSError, av.error.FFmpegError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or error
        return StoreError(f"The overlay {self._path} cannot be written: {reason}.")
