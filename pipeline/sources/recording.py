"""Record live inputs to a file for replay: packets unchanged, other frames losslessly.

Packets are copied if the container holds their codec. Frames of other codecs (raw video of pipes
and cameras) and images of a program are encoded with FFV1 in Matroska.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterable
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import av.error
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.video_view import ONE_THREAD

logger = logging.getLogger(__name__)

_MPEG = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video"})  # complete in every packet
COPIED_CODECS = {
    ".mkv": _MPEG | {"av1", "dirac", "ffv1", "mjpeg", "mpeg4", "prores", "theora", "vp8", "vp9"},
    ".ts": _MPEG,
}
"""Codecs whose packets are recorded unchanged, by the suffix of the recording."""

_LOSSLESS = ".mkv"
_WRITTEN_EVERY_MS = "1000"  # of Matroska: a killed run loses no more than this
_TIME_BASE = Fraction(1, 1000)
_LOCK_S = 5.0  # for another thread that is writing


def check_recording(path: Path) -> None:
    """Raise `ConfigError` if no recording can be written to this path, whatever the source."""
    if path.suffix.lower() not in COPIED_CODECS:
        raise ConfigError(
            f"{path} cannot be recorded to; choose a name that ends in .mkv (any source) or .ts "
            "(H.264, H.265 or MPEG-2)"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} cannot be recorded to; there is no folder {path.parent}")


def is_copied(path: Path, codec: str) -> bool:
    """Whether the packets of a codec are recorded to this path unchanged."""
    return codec in COPIED_CODECS[path.suffix.lower()]


class Recordings:
    """What records a live source: one file a connection, and one that is being written at most.

    how: "copied" (packets as they are) or "encoded" (frames, without loss); "" if nothing is
    recorded yet. Thread-safe.
    """

    def __init__(self) -> None:
        self.how = ""
        self._open: list[_Recorder] = []

    def begin(self, recorder: _Recorder, how: str) -> None:
        """Note a recorder that was opened."""
        self.how = how
        self._open = [recorder]

    def finish(self) -> None:
        """Finish the file that is being written, also if the thread that writes it waits."""
        for recorder in self._open:
            recorder.close()


class _Recorder:
    """A new file for one stream, without overwriting an existing one.

    failed: why it ended early, as when the disk is full; "" if it did not. It may be closed in
    another thread than that which writes.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._path = free_path(path)
        options = {"cluster_time_limit": _WRITTEN_EVERY_MS} if path.suffix == ".mkv" else {}
        try:
            self._container = av.open(str(self._path), "w", container_options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_record(self._path, error) from error
        self._over = False
        self.failed = ""

    def close(self) -> None:
        """Finish the file, unless another thread hangs while it writes."""
        if not self._lock.acquire(timeout=_LOCK_S):
            logger.error("the recording %s hangs and was left behind", self._path)
            return
        try:
            self._finish()
        finally:
            self._lock.release()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            self._fail(error)

    def _mux(self, packets: Packet[Any] | Iterable[Packet[Any]]) -> None:
        try:
            self._container.mux(packets)  # type: ignore[arg-type]
        except (av.error.FFmpegError, OSError) as error:
            if error.errno == errno.EINVAL:  # the container refuses this packet, not the file
                logger.warning("%s lacks packets: %s", self._path, _reason(error))
                return
            self._fail(error)
            _Recorder._finish(self)

    def _fail(self, error: Exception) -> None:
        if not self.failed:
            self.failed = _reason(error)
            logger.error("the recording %s ends here: %s", self._path, self.failed)


class PacketRecorder(_Recorder):
    """Copies the packets of a stream whose codec `is_copied`.

    Raises `ConfigError` if the file cannot be created.
    """

    def __init__(
        self, path: Path, stream: VideoStream, recordings: Recordings | None = None
    ) -> None:
        super().__init__(path)
        try:
            self._stream = self._container.add_stream_from_template(stream)
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_record(self._path, error) from error
        if recordings is not None:
            recordings.begin(self, "copied")

    def write(self, packet: Packet[VideoStream]) -> None:
        """Write a packet, which is as before then; those that the container refuses are skipped."""
        with self._lock:
            if self._over:
                return
            stream, times = packet.stream, (packet.pts, packet.dts, packet.time_base)
            packet.stream = self._stream
            self._mux(packet)
            packet.stream = stream
            packet.pts, packet.dts, packet.time_base = times


class FrameRecorder(_Recorder):
    """Encodes frames losslessly (FFV1), scaled to the size of the first.

    first: decides size and pixel format; it is not written. Raises `ConfigError` if the file cannot
    be created, or cannot hold such frames.
    """

    def __init__(self, path: Path, first: VideoFrame, recordings: Recordings | None = None) -> None:
        if path.suffix.lower() != _LOSSLESS:
            raise ConfigError(
                f"{path} cannot hold this source, which is encoded without loss to record it; "
                f"choose a name that ends in {_LOSSLESS}"
            )
        super().__init__(path)
        try:
            self._stream = self._container.add_stream("ffv1", rate=30)
            self._stream.height, self._stream.width = first.height, first.width
            self._stream.pix_fmt = lossless_format(first.format)
            self._stream.codec_context.time_base = _TIME_BASE
            self._fitted(first)
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _cannot_record(self._path, error) from error
        self._first_ms: int | None = None
        self._last_ms = -1
        if recordings is not None:
            recordings.begin(self, "encoded")

    def write(self, image: VideoFrame, at_s: float) -> None:
        """Write a frame and its presentation time, seconds."""
        with self._lock:
            if not self._over:
                self._write(image, at_s)

    def _write(self, image: VideoFrame, at_s: float) -> None:
        at_ms = round(1000 * at_s)
        self._first_ms = at_ms if self._first_ms is None else self._first_ms
        self._last_ms = max(self._last_ms + 1, at_ms - self._first_ms)
        fitted = self._fitted(image)
        fitted.pts, fitted.time_base = self._last_ms, _TIME_BASE
        self._mux(self._stream.encode(fitted))

    def _finish(self) -> None:
        if not self._over:
            self._mux(self._stream.encode(None))
        super()._finish()

    def _fitted(self, image: VideoFrame) -> VideoFrame:
        return image.reformat(
            self._stream.width, self._stream.height, self._stream.pix_fmt, **ONE_THREAD
        )


def lossless_format(stored: VideoFormat) -> str:
    """FFV1's pixel format that holds another one's values: its layout and its depth."""
    bits = max(component.bits for component in stored.components)
    if stored.is_rgb or stored.has_palette:
        return "bgr0" if bits <= 8 else "gbrp16le"
    depth = "" if bits <= 8 else f"{bits}le"
    if len(stored.components) < 3:
        return f"gray{depth}"
    columns, rows = 16 // stored.chroma_width(16), 16 // stored.chroma_height(16)
    layout = {(1, 1): "444", (1, 2): "440", (2, 1): "422", (4, 1): "411", (4, 4): "410"}
    return f"yuv{layout.get((columns, rows), '420')}p{depth}"


def free_path(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3, … that does not exist."""
    if not path.exists():
        return path
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(name for name in names if not name.exists())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _cannot_record(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} cannot be recorded to ({_reason(error)}); try a name that ends in .mkv."
    )
