"""Publishes live results to Foxglove: as an MCAP recording, or over a WebSocket.

Topics: `/camera` (JPEG), `/labels` (one label image, mono16), `/objects` (boxes over the image),
`/table` (the same as JSON), all with the source's timestamp; log times are those of the capture
clock. Commands are JSON on any topic that a client publishes; answers go out on `/answer`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.messages import (
    captured_ns,
    jpeg,
    parse_port,
    result_message,
    stamp_ns,
)
from maskstream.pipeline.live.publishers.extras import need
from maskstream.pipeline.rendering.draw import object_color
from maskstream.pipeline.types import Frame, FrameResult

logger = logging.getLogger(__name__)

_FRAME_ID = "camera"
_INSTALL = "foxglove-sdk: pip install 'maskstream[foxglove]'"
_BACKLOG = 8  # messages kept for a slow client; older ones are dropped
_LARGEST_PX = 4096


class _Topics:
    """Foxglove channels of one recording or server."""

    def __init__(self, foxglove: Any, context: Any) -> None:
        channels = need("foxglove.channels", "Foxglove", _INSTALL)
        self._messages = need("foxglove.messages", "Foxglove", _INSTALL)
        self._camera = channels.CompressedImageChannel("/camera", context=context)
        self._labels = channels.RawImageChannel("/labels", context=context)
        self._boxes = channels.ImageAnnotationsChannel("/objects", context=context)
        self._table = foxglove.Channel("/table", message_encoding="json", context=context)

    def log(self, frame: Frame, result: FrameResult) -> None:
        """Log a result on the topics that have a sink."""
        at = captured_ns(frame) or None
        stamp = self._stamp(stamp_ns(frame, result))
        if self._camera.has_sinks():
            self._camera.log(self._image(frame, stamp), log_time=at)
        if self._labels.has_sinks():
            self._labels.log(self._label_image(result, stamp), log_time=at)
        if self._boxes.has_sinks():
            self._boxes.log(self._annotations(result, stamp), log_time=at)
        if self._table.has_sinks():
            self._table.log(result_message(frame, result), log_time=at)

    def close(self) -> None:
        """Close the channels."""
        for channel in (self._camera, self._labels, self._boxes, self._table):
            channel.close()

    def _stamp(self, nanoseconds: int) -> Any:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        return self._messages.Timestamp(sec=seconds, nsec=rest)

    def _image(self, frame: Frame, stamp: Any) -> Any:
        return self._messages.CompressedImage(
            timestamp=stamp, frame_id=_FRAME_ID, format="jpeg", data=jpeg(frame, _LARGEST_PX)
        )

    def _label_image(self, result: FrameResult, stamp: Any) -> Any:
        height, width = result.labels.shape
        return self._messages.RawImage(
            timestamp=stamp,
            frame_id=_FRAME_ID,
            width=width,
            height=height,
            encoding="mono16",
            step=2 * width,
            data=result.labels.astype("<u2", copy=False).tobytes(),
        )

    def _annotations(self, result: FrameResult, stamp: Any) -> Any:
        m = self._messages
        boxes, texts = [], []
        for found in result.objects:
            red, green, blue = (value / 255 for value in object_color(found.id))
            color = m.Color(r=red, g=green, b=blue, a=1.0)
            x0, y0, x1, y1 = found.box_xyxy
            corners = [m.Point2(x=x, y=y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
            boxes.append(
                m.PointsAnnotation(
                    timestamp=stamp,
                    type=m.PointsAnnotationType.LineLoop,
                    points=corners,
                    outline_color=color,
                    thickness=2.0,
                )
            )
            named = f"#{found.id} {found.label}".rstrip()
            text = f"{named} {found.score:.2f} {found.state.name.lower()}"
            texts.append(
                m.TextAnnotation(
                    timestamp=stamp,
                    position=corners[0],
                    text=text,
                    font_size=14.0,
                    text_color=color,
                )
            )
        return m.ImageAnnotations(timestamp=stamp, points=boxes, texts=texts)


class McapFile:
    """A sink that records to a new MCAP file."""

    def __init__(self, path: str) -> None:
        """Create the file. Raises `ConfigError` if that is not possible, `MissingExtraError`."""
        foxglove = need("foxglove", "recording MCAP", _INSTALL)
        if not path or Path(path).exists():
            raise ConfigError(
                f"--publish mcap:FILE needs a file that does not exist yet, not '{path}'"
            )
        context = foxglove.Context()
        try:
            self._file = _NewFile(path)
            self._writer = foxglove.open_mcap(self._file, context=context)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error
        self._topics = _Topics(foxglove, context)
        self._context = context  # keeps the context alive

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Record the result. Raises `OSError`, for example if the disk is full."""
        self._topics.log(frame, result)
        self._file.check()

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Finish the file. Raises `OSError`."""
        self._topics.close()
        try:
            self._writer.close()
        finally:
            self._file.close()


class _NewFile:
    """A file that the SDK writes to, and which keeps an error for `check`: the SDK only logs it.

    After an error data are dropped, and positions are those that the file would have.
    """

    def __init__(self, path: str) -> None:
        """Create the file. Raises `OSError`."""
        self._file = FileIO(path, "xb")
        self._error: OSError | None = None
        self._position = self._size = 0

    def write(self, data: bytes) -> int:
        """Write all data."""
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position, from the start (0), from here (1) or from the end (2)."""
        self._position = offset + (0, self._position, self._size)[whence]
        if self._error is None:
            self._file.seek(self._position)
        return self._position

    def flush(self) -> None:
        """Nothing to do: no data are buffered."""

    def check(self) -> None:
        """Raise the `OSError` that writing met, if it did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the file. Raises `OSError` if anything is missing in it."""
        self._file.close()
        self.check()


class FoxgloveServer:
    """A sink that serves Foxglove's WebSocket at [HOST:]PORT and accepts commands there."""

    def __init__(self, address: str, take: TakeCommand) -> None:
        """Serve. Raises `ConfigError` if the address is wrong or taken, `MissingExtraError`."""
        foxglove = need("foxglove", "serving Foxglove", _INSTALL)
        host, _, port = address.rpartition(":")
        number = parse_port(port, "--publish foxglove:[HOST:]PORT")
        context = foxglove.Context()
        self._answers = foxglove.Channel("/answer", message_encoding="json", context=context)
        try:
            self._server = foxglove.start_server(
                name="maskstream",
                host=host or "127.0.0.1",
                port=number,
                context=context,
                capabilities=[foxglove.Capability.ClientPublish],
                supported_encodings=["json"],
                server_listener=_listener(CommandIntake(take), self._answer),
                message_backlog_size=_BACKLOG,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Foxglove cannot be served at {address}: {error}; choose another port"
            ) from error
        self._topics = _Topics(foxglove, context)
        self._context = context  # keeps the context alive

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self._server.port)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Send the result to all subscribers."""
        self._topics.log(frame, result)

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Stop serving."""
        self._topics.close()
        self._answers.close()
        self._server.stop()

    def _answer(self, outcome: Outcome) -> None:
        self._answers.log(outcome.to_json())


def _listener(intake: CommandIntake, answer: Callable[[Outcome], None]) -> Any:
    """Listener for the messages that clients publish."""
    base: Any = need("foxglove.websocket", "serving Foxglove", _INSTALL).ServerListener

    class Listener(base):  # type: ignore[misc]
        def on_message_data(self, client: Any, client_channel_id: Any, data: bytes) -> None:
            intake.receive(data, answer)

    return Listener()
