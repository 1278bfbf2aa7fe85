"""Publishes live results to Foxglove over a WebSocket, on the topics of its MCAP recordings, too.

Topics: `/camera` (JPEG), `/labels` (one label image, mono16), `/objects` (boxes over the image),
`/table` (the same as JSON) and, of a camera with a calibration, `/calibration`, all stamped as
`Headers` says; log times are those of the capture clock and do not decrease. Commands are JSON on
any topic that a client publishes; answers go out on `/answer`. Those of one of several cameras are
below its name: `/front/labels`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.extras import need
from maskstream.pipeline.live.camera_info import CameraInfo
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.endpoints import Endpoint
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.live.messages import (
    captured_ns,
    jpeg,
    of_camera,
    result_message,
)
from maskstream.pipeline.rendering.draw import object_color
from maskstream.pipeline.types import Frame, FrameResult

logger = logging.getLogger(__name__)

INSTALL = "foxglove-sdk: pip install 'maskstream[foxglove]'"
"""What the topics need."""
_BACKLOG = 8  # messages kept for a slow client; older ones are dropped
_LARGEST_PX = 4096
_DISTORTION_MODELS = {"equidistant": "kannala_brandt"}  # ROS' names, and Foxglove's
_STOP_S = 2.0


def topic_prefix(camera: str) -> str:
    """What the topics of a camera begin with: `/front`, or nothing for a single one."""
    return f"/{camera}" if camera else ""


class Topics:
    """Foxglove channels of one recording or server.

    context: of the SDK, which they belong to. headers: what those of messages say. camera: name of
    one of several cameras, or "".
    """

    def __init__(self, foxglove: Any, context: Any, headers: Headers, camera: str = "") -> None:
        prefix = topic_prefix(camera)
        self._name = camera
        self._headers = headers
        self._log_ns = 0
        channels = need("foxglove.channels", "Foxglove", INSTALL)
        self._messages = need("foxglove.messages", "Foxglove", INSTALL)
        self._camera = channels.CompressedImageChannel(f"{prefix}/camera", context=context)
        self._labels = channels.RawImageChannel(f"{prefix}/labels", context=context)
        self._boxes = channels.ImageAnnotationsChannel(f"{prefix}/objects", context=context)
        self._table = foxglove.Channel(f"{prefix}/table", message_encoding="json", context=context)
        self._all = [self._camera, self._labels, self._boxes, self._table]
        if headers.camera is not None:
            self._calibration = channels.CameraCalibrationChannel(
                f"{prefix}/calibration", context=context
            )
            self._all.append(self._calibration)

    def log(self, frame: Frame, result: FrameResult) -> None:
        """Log a result on the topics that have a sink."""
        self._log_ns = max(self._log_ns, captured_ns(frame))
        at = self._log_ns or None
        stamp = self._stamp(self._headers.stamp_ns(frame))
        if self._headers.camera is not None:
            self._calibration.log(self._calibrated(self._headers.camera, frame, stamp), log_time=at)
        if self._camera.has_sinks():
            self._camera.log(self._image(frame, stamp), log_time=at)
        if self._labels.has_sinks():
            self._labels.log(self._label_image(result, stamp), log_time=at)
        if self._boxes.has_sinks():
            self._boxes.log(self._annotations(result, stamp), log_time=at)
        if self._table.has_sinks():
            self._table.log(of_camera(self._name, result_message(frame, result)), log_time=at)

    def close(self) -> None:
        """Close the channels."""
        for channel in self._all:
            channel.close()

    def _stamp(self, nanoseconds: int) -> Any:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        return self._messages.Timestamp(sec=seconds, nsec=rest)

    def _image(self, frame: Frame, stamp: Any) -> Any:
        return self._messages.CompressedImage(
            timestamp=stamp,
            frame_id=self._headers.frame_id,
            format="jpeg",
            data=jpeg(frame, _LARGEST_PX),
        )

    def _label_image(self, result: FrameResult, stamp: Any) -> Any:
        height, width = result.labels.shape
        return self._messages.RawImage(
            timestamp=stamp,
            frame_id=self._headers.frame_id,
            width=width,
            height=height,
            encoding="mono16",
            step=2 * width,
            data=result.labels.astype("<u2", copy=False).tobytes(),
        )

    def _calibrated(self, camera: CameraInfo, frame: Frame, stamp: Any) -> Any:
        scaled = camera.at(frame.size_hw)
        return self._messages.CameraCalibration(
            timestamp=stamp,
            frame_id=self._headers.frame_id,
            height=scaled.size_hw[0],
            width=scaled.size_hw[1],
            distortion_model=_DISTORTION_MODELS.get(
                camera.distortion_model, camera.distortion_model
            ),
            D=list(scaled.d),
            K=list(scaled.k),
            R=list(scaled.r),
            P=list(scaled.p),
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


class FoxgloveServer:
    """A sink that serves Foxglove's WebSocket at an endpoint and accepts commands there."""

    def __init__(
        self,
        endpoint: Endpoint,
        take: TakeCommand,
        headers: Headers = DEFAULT_HEADERS,
        camera: str = "",
    ) -> None:
        """Serve. Raises `ConfigError` if the endpoint is taken, `MissingExtraError`."""
        foxglove = need("foxglove", "serving Foxglove", INSTALL)
        context = foxglove.Context()
        self._answers = foxglove.Channel(
            f"{topic_prefix(camera)}/answer", message_encoding="json", context=context
        )
        try:
            self._server = foxglove.start_server(
                name=f"maskstream {camera}".rstrip(),
                host=endpoint.host,
                port=endpoint.port,
                context=context,
                capabilities=[foxglove.Capability.ClientPublish],
                supported_encodings=["json"],
                server_listener=_listener(CommandIntake(take), self._answer),
                message_backlog_size=_BACKLOG,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Foxglove cannot be served at {endpoint}: {error}; choose another port"
            ) from error
        self._topics = Topics(foxglove, context, headers, camera)
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
        """Stop serving; a client that connected and says nothing is not waited for."""
        self._topics.close()
        self._answers.close()
        stopping = threading.Thread(target=self._server.stop, daemon=True)
        stopping.start()
        stopping.join(_STOP_S)  # the SDK would wait for the handshake of such a client

    def _answer(self, outcome: Outcome) -> None:
        self._answers.log(outcome.to_json())


def _listener(intake: CommandIntake, answer: Callable[[Outcome], None]) -> Any:
    """Listener for the messages that clients publish."""
    base: Any = need("foxglove.websocket", "serving Foxglove", INSTALL).ServerListener

    class Listener(base):  # type: ignore[misc]
        def on_message_data(self, client: Any, client_channel_id: Any, data: bytes) -> None:
            intake.receive(data, answer)

    return Listener()
