"""Record live inputs to a file for replay: packets unchanged, arrays losslessly."""

from __future__ import annotations

import logging
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.video import ONE_THREAD
from maskstream.pipeline.types import RgbImage, SizeHW

logger = logging.getLogger(__name__)


class PacketRecorder:
    """Copies the packets of a stream into a new file, without overwriting existing ones.

    Raises `ConfigError` if the file cannot be created.
    """

    def __init__(self, path: Path, stream: VideoStream) -> None:
        self._path = free_path(path)
        try:
            self._container = av.open(str(self._path), "w")
            self._stream = self._container.add_stream_from_template(stream)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_record(self._path, error) from error
        self._failed = False

    def write(self, packet: Packet[VideoStream]) -> None:
        """Write a packet, modifying it; packets that the container refuses are skipped."""
        packet.stream = self._stream
        try:
            self._container.mux(packet)
        except av.error.FFmpegError as error:
            if not self._failed:
                logger.warning("%s lacks packets: %s", self._path, error.strerror)
            self._failed = True

    def close(self) -> None:
        """Finish the file."""
        self._container.close()


class ImageRecorder:
    """Encodes RGB uint8 [H, W, 3] images of one size losslessly (FFV1) into a new file.

    The container must support FFV1 (`.mkv`). Raises `ConfigError` if the file cannot be created.
    """

    def __init__(self, path: Path, size_hw: SizeHW) -> None:
        self._path = free_path(path)
        try:
            self._container = av.open(str(self._path), "w")
            self._stream = self._container.add_stream("ffv1", rate=30)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_record(self._path, error) from error
        self._stream.height, self._stream.width = size_hw
        self._stream.pix_fmt = "bgr0"
        self._stream.codec_context.time_base = Fraction(1, 1000)
        self._first_ms: int | None = None
        self._last_ms = -1

    def write(self, rgb: RgbImage, at_s: float) -> None:
        """Write an image and its presentation time, seconds."""
        at_ms = round(1000 * at_s)
        self._first_ms = at_ms if self._first_ms is None else self._first_ms
        self._last_ms = max(self._last_ms + 1, at_ms - self._first_ms)
        packed = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        image = packed.reformat(format="bgr0", **ONE_THREAD)
        image.pts, image.time_base = self._last_ms, Fraction(1, 1000)
        self._container.mux(self._stream.encode(image))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def free_path(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3, … that does not exist."""
    if not path.exists():
        return path
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(name for name in names if not name.exists())


def _cannot_record(path: Path, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigError(f"{path} cannot be recorded to ({reason}); try a name that ends in .mkv.")
