"""Publishes live results as ROS 2 messages: a label image and detections.

Only `Ros2Publisher` imports rclpy; the functions that build messages are given the message classes,
so that they can be tested without ROS.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.messages import stamp_ns
from maskstream.pipeline.live.publishers.extras import need
from maskstream.pipeline.types import Frame, FrameResult

_INSTALL = "ROS 2 (rclpy, sensor_msgs, vision_msgs, std_msgs): source its setup.bash first"
_FRAME_ID = "camera"
_DEPTH = 1  # results kept for a slow subscriber
_COMMAND_DEPTH = 10


@dataclass(frozen=True, slots=True)
class MessageTypes:
    """The message classes of ROS: std_msgs/Header, sensor_msgs/Image, vision_msgs/…."""

    header: Callable[[], Any]
    image: Callable[[], Any]
    detections: Callable[[], Any]
    detection: Callable[[], Any]
    hypothesis: Callable[[], Any]


def header_of(frame: Frame, result: FrameResult, types: MessageTypes, frame_id: str) -> Any:
    """A header with the source's timestamp (`stamp_ns`), never the time of sending."""
    header = types.header()
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns(frame, result), 1_000_000_000)
    header.frame_id = frame_id
    return header


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
    """A vision_msgs/Detection2DArray of the visible objects; `id` is the label value.

    `class_id` is the class, or the track's state where no detector has named one.
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
        hypothesis.hypothesis.class_id = found.label or found.state.name.lower()
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
        command["pts_s"] = stamp.sec + stamp.nanosec / 1e9
    return json.dumps(command)


def ros_types() -> MessageTypes:
    """The message classes of the sourced ROS installation. Raises `MissingExtraError`."""
    std = need("std_msgs.msg", "publishing to ROS 2", _INSTALL)
    sensor = need("sensor_msgs.msg", "publishing to ROS 2", _INSTALL)
    vision = need("vision_msgs.msg", "publishing to ROS 2", _INSTALL)
    return MessageTypes(
        std.Header,
        sensor.Image,
        vision.Detection2DArray,
        vision.Detection2D,
        vision.ObjectHypothesisWithPose,
    )


class Ros2Publisher:
    """A sink that is a ROS 2 node: `~/labels`, `~/detections`, `~/command` and `~/answer`.

    name: node name. `~/detections_in` takes the vision_msgs/Detection2DArray of a detector.
    Results are sent with best effort, depth 1; commands and answers are JSON in std_msgs/String,
    reliable, depth 10. Raises `MissingExtraError`.
    """

    def __init__(self, name: str, take: TakeCommand) -> None:
        self._rclpy = need("rclpy", "publishing to ROS 2", _INSTALL)
        self._types = ros_types()
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
        header = header_of(frame, result, self._types, _FRAME_ID)
        self._labels.publish(label_image(result, header, self._types))
        self._detections.publish(detections(result, header, self._types))
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
        message = self._string()
        message.data = json.dumps(outcome.to_json())
        self._answers.publish(message)
