"""Publishes live results as ROS 2 messages: a label image, detections and a table.

Only `Ros2Publisher` imports rclpy; the functions that build messages are given the message classes,
so that they can be tested without ROS.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskstream.pipeline.extras import need
from maskstream.pipeline.live.camera_info import CameraInfo
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.live.messages import result_message
from maskstream.pipeline.types import Frame, FrameResult

_INSTALL = "ROS 2 (rclpy, sensor_msgs, vision_msgs, std_msgs): source its setup.bash first"
_DEPTH = 1  # results kept for a slow subscriber
_COMMAND_DEPTH = 10


@dataclass(frozen=True, slots=True)
class MessageTypes:
    """The message classes of ROS: std_msgs/Header, sensor_msgs/…, vision_msgs/…."""

    header: Callable[[], Any]
    image: Callable[[], Any]
    camera_info: Callable[[], Any]
    detections: Callable[[], Any]
    detection: Callable[[], Any]
    hypothesis: Callable[[], Any]


def header_of(frame: Frame, headers: Headers, types: MessageTypes) -> Any:
    """A header with the frame's stamp, never the time of sending."""
    header = types.header()
    header.stamp.sec, header.stamp.nanosec = divmod(headers.stamp_ns(frame), 1_000_000_000)
    header.frame_id = headers.frame_id
    return header


def camera_info(camera: CameraInfo, header: Any, types: MessageTypes) -> Any:
    """A sensor_msgs/CameraInfo of the calibration."""
    message = types.camera_info()
    message.header = header
    message.height, message.width = camera.size_hw
    message.distortion_model = camera.distortion_model
    message.d, message.k, message.r, message.p = map(list, (camera.d, camera.k, camera.r, camera.p))
    return message


def label_image(result: FrameResult, header: Any, types: MessageTypes) -> Any:
    """A sensor_msgs/Image `mono16`: 0 background, else the object's id."""
    image = types.image()
    image.header = header
    image.height, image.width = result.labels.shape
    image.encoding = "mono16"
    image.is_bigendian = 0
    image.step = 2 * image.width
    pixels = result.labels.astype("<u2", copy=False).tobytes()
    image.data = array("B", pixels)  # rclpy would check every element of `bytes`, in Python
    return image


def detections(result: FrameResult, header: Any, types: MessageTypes) -> Any:
    """A vision_msgs/Detection2DArray of the visible objects.

    `id` is the object's, which is the label value, too: the same in every message. `class_id` is
    the class that a detector gave, else empty; the track state is in the table.
    """
    message = types.detections()
    message.header = header
    for found in result.objects:
        if not found.area:
            continue
        x0, y0, x1, y1 = found.box_xyxy
        detection = types.detection()
        detection.header = header
        detection.id = str(found.id)
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x = x1 - x0
        detection.bbox.size_y = y1 - y0
        hypothesis = types.hypothesis()
        hypothesis.hypothesis.class_id = found.label
        hypothesis.hypothesis.score = found.score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


def detections_command(message: Any) -> str:
    """A command, as JSON, with the detections of a vision_msgs/Detection2DArray.

    Each has the class and score of its best hypothesis; the message's stamp names the frame, as the
    results are stamped, and 0 the newest one.
    """
    found = []
    for detection in message.detections:
        center, size = detection.bbox.center.position, detection.bbox
        left, top = center.x - size.size_x / 2, center.y - size.size_y / 2
        best = max((each.hypothesis for each in detection.results), key=lambda h: h.score)
        box = [left, top, left + size.size_x, top + size.size_y]
        found.append({"xyxy": box, "label": best.class_id, "score": best.score})
    stamp = message.header.stamp
    command = {"type": "detections", "detections": found}
    if stamp.sec or stamp.nanosec:
        command["stamp_s"] = stamp.sec + stamp.nanosec / 1e9
    return json.dumps(command)


def ros_types() -> MessageTypes:
    """The message classes of the sourced ROS installation. Raises `MissingExtraError`."""
    std = need("std_msgs.msg", "publishing to ROS 2", _INSTALL)
    sensor = need("sensor_msgs.msg", "publishing to ROS 2", _INSTALL)
    vision = need("vision_msgs.msg", "publishing to ROS 2", _INSTALL)
    return MessageTypes(
        std.Header,
        sensor.Image,
        sensor.CameraInfo,
        vision.Detection2DArray,
        vision.Detection2D,
        vision.ObjectHypothesisWithPose,
    )


class Ros2Publisher:
    """A sink that is a ROS 2 node: `~/labels`, `~/detections`, `~/table`, `~/command`, `~/answer`.

    name: node name. headers: of its messages; with a camera, `~/camera_info` is published, too.
    `~/detections_in` takes the vision_msgs/Detection2DArray of a detector.
    Results are sent with best effort, depth 1. The table (`result_message`), commands and answers
    are JSON in std_msgs/String; the latter two are reliable, depth 10. Raises `MissingExtraError`.
    """

    def __init__(self, name: str, take: TakeCommand, headers: Headers = DEFAULT_HEADERS) -> None:
        self._rclpy = need("rclpy", "publishing to ROS 2", _INSTALL)
        self._types = ros_types()
        self._headers = headers
        qos = need("rclpy.qos", "publishing to ROS 2", _INSTALL)
        std = need("std_msgs.msg", "publishing to ROS 2", _INSTALL)
        self._intake = CommandIntake(take)
        self._string = std.String
        self._context = self._rclpy.Context()
        self._context.init()
        self._node = self._rclpy.create_node(name, context=self._context)
        profile = qos.QoSProfile(depth=_DEPTH, reliability=qos.ReliabilityPolicy.BEST_EFFORT)
        self._labels = self._node.create_publisher(self._types.image, "~/labels", profile)
        self._detections = self._node.create_publisher(
            self._types.detections, "~/detections", profile
        )
        self._camera_info = self._node.create_publisher(
            self._types.camera_info, "~/camera_info", profile
        )
        self._table = self._node.create_publisher(std.String, "~/table", profile)
        self._answers = self._node.create_publisher(std.String, "~/answer", _COMMAND_DEPTH)
        self._node.create_subscription(std.String, "~/command", self._on_message, _COMMAND_DEPTH)
        self._node.create_subscription(
            self._types.detections, "~/detections_in", self._on_detections, profile
        )
        executors = need("rclpy.executors", "publishing to ROS 2", _INSTALL)
        self._executor = executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Publish the result and read waiting commands."""
        header = header_of(frame, self._headers, self._types)
        self._labels.publish(label_image(result, header, self._types))
        self._detections.publish(detections(result, header, self._types))
        if self._headers.camera is not None:
            camera = self._headers.camera.at(frame.size_hw)
            self._camera_info.publish(camera_info(camera, header, self._types))
        if self._table.get_subscription_count():
            self._table.publish(self._text(result_message(frame, result)))
        self._executor.spin_once(timeout_sec=0)

    def idle(self) -> None:
        """Read waiting commands."""
        self._executor.spin_once(timeout_sec=0)

    def close(self, *, complete: bool) -> None:
        """Shut down the node."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _on_message(self, message: Any) -> None:
        self._intake.receive(message.data, self._answer)

    def _on_detections(self, message: Any) -> None:
        try:
            command = detections_command(message)
        except ValueError:  # a detection without hypotheses
            self._answer(Outcome(refused="every detection needs a hypothesis"))
        else:
            self._intake.receive(command, self._answer)

    def _answer(self, outcome: Outcome) -> None:
        self._answers.publish(self._text(outcome.to_json()))

    def _text(self, values: dict[str, Any]) -> Any:
        message = self._string()
        message.data = json.dumps(values)
        return message
