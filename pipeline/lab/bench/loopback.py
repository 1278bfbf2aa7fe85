"""A simulated network camera on localhost: streams frames in a loop as MPEG-TS in real time."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.pipeline.types import RgbImage, SizeHW

_FRAMES_MAX_BYTES = 2**29  # of a clip's frames while they are encoded
_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "g": "30", "crf": "20"}


class LoopbackCamera:
    """Sends a few frames in a loop, encoded once, from a thread for each connection.

    frames: RGB uint8 [H, W, 3]. rate: frames per second. port: 0 for any free one. speed: factor on
    the real-time rate. Faults can be simulated: `pause_s` sends nothing for that time, once;
    `corrupt` damages that many frames; `jump_s` is added to all timestamps; `hang_up` ends every
    connection.
    """

    def __init__(
        self, frames: Iterable[RgbImage], rate: int = 30, port: int = 0, speed: float = 1.0
    ) -> None:
        self.corrupt = 0
        self.pause_s = self.jump_s = 0.0
        self.connections = 0
        self._rate, self._speed = rate, speed
        self._encoded = _encode(frames, rate)
        self._stopped = threading.Event()
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The URL for `live`."""
        return f"tcp://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        """End every connection; new ones are still accepted."""
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop serving."""
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close() alone does not wake accept()
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> LoopbackCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, av.error.FFmpegError):
            send = _Sender(client, lambda: self.corrupt > 0)
            with av.open(io.BytesIO(self._encoded)) as source:
                template = source.streams.video[0]
                with av.open(send, "w", format="mpegts") as container:
                    self._send(container.add_stream_from_template(template), container)
        self._clients.remove(client)

    def _send(self, stream: VideoStream, container: av.container.OutputContainer) -> None:
        begun = time.monotonic()
        for number, packet in enumerate(self._packets()):
            due = begun + number / self._rate / self._speed
            pause_s, self.pause_s = self.pause_s, 0.0
            begun += pause_s
            if self._stopped.wait(max(0.0, due + pause_s - time.monotonic())):
                return
            self.corrupt = max(0, self.corrupt - 1)
            packet.stream = stream
            packet.time_base = Fraction(1, self._rate)
            packet.pts = packet.dts = number + round(self.jump_s * self._rate)
            container.mux(packet)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        while True:
            with av.open(io.BytesIO(self._encoded), "r") as source:
                for packet in source.demux(source.streams.video[0]):
                    if packet.size:
                        yield packet


class _Sender:
    """A file object for PyAV that writes to a socket."""

    def __init__(self, client: socket.socket, corrupt: Callable[[], bool]) -> None:
        self._client = client
        self._corrupt = corrupt

    def write(self, data: bytes) -> int:
        """Send data; if `corrupt`, invert all bytes except the packet headers."""
        sent = bytearray(data)
        if self._corrupt():
            for start in range(0, len(sent), 188):
                inner = slice(start + 80, start + 188)
                sent[inner] = bytes(byte ^ 0xFF for byte in sent[inner])
        self._client.sendall(sent)
        return len(data)


def _encode(frames: Iterable[RgbImage], rate: int) -> bytes:
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
        stream.pix_fmt = "yuv420p"
        for number, rgb in enumerate(frames):
            if not number:
                stream.height, stream.width = rgb.shape[:2]
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return encoded.getvalue()


def clip_frames(clip: Path, size_hw: SizeHW, most: int = 120) -> Iterator[RgbImage]:
    """The first frames of a clip at a size, forward and backward, so that the loop has no cut.

    There are at most `most`, and fewer of large ones.
    """
    most = min(most, max(2, _FRAMES_MAX_BYTES // (3 * size_hw[0] * size_hw[1])))
    with av.open(str(clip)) as container:
        frames = []
        for frame in container.decode(video=0):
            height, width = size_hw
            rgb = frame.to_ndarray(format="rgb24", width=width, height=height)
            frames.append(np.asarray(rgb, np.uint8))
            if len(frames) == most:
                break
    yield from frames
    yield from frames[-2:0:-1]


@contextmanager
def camera_process(clip: Path, size_hw: SizeHW, rate: int = 30) -> Iterator[str]:
    """Run a `LoopbackCamera` of a clip in its own process; yields its URL."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_camera, args=(there, clip, size_hw, rate), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()


def _camera(there: Connection, clip: Path, size_hw: SizeHW, rate: int) -> None:
    with LoopbackCamera(clip_frames(clip, size_hw), rate) as camera:
        there.send(camera.url)
        there.poll(None)  # until the other side closes it
