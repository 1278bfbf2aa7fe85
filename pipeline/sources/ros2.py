"""An image topic of ROS 2 as a live source: `ros2:/camera/image_raw`.

Only `RosTopic` imports rclpy, when it is iterated; `rgb_of` and `rgb_of_compressed` are given
messages, so they can be tested without ROS.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import cv2
import numpy as np

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.extras import need
from maskstream.pipeline.types import RgbImage

PREFIX = "ros2:"
_INSTALL = "ROS 2 (rclpy, sensor_msgs): source its setup.bash first"
_WHAT = "reading a topic of ROS 2"
_WAKE_S = 0.1  # after which a wait for an image looks whether the run was stopped
_COMPRESSED = "/compressed"

# Bytes of a pixel and OpenCV's conversion to RGB, by sensor_msgs/image_encodings.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "mono16": (2, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
}


def rgb_of(message: Any) -> RgbImage:
    """Convert a sensor_msgs/Image to RGB uint8 [H, W, 3].

    Raises `SourceError` if its encoding is none of those of cameras, or its data are too short.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding not in _ENCODINGS:
        raise SourceError(
            f"The topic's images are '{message.encoding}', which are not taken; publish "
            f"{', '.join(_ENCODINGS)}."
        )
    size, conversion = _ENCODINGS[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    if step < size * width or len(data) < step * height or not height or not width:
        raise SourceError(
            f"The topic's image has {len(data)} bytes and rows of {step}; {width}x{height} of "
            f"'{message.encoding}' need more."
        )
    pixels = data[: step * height].reshape(height, step)[:, : size * width]
    if message.encoding == "mono16":
        pixels = pixels[:, 0 if message.is_bigendian else 1 :: 2]
        size = 1
    image = np.ascontiguousarray(pixels).reshape(height, width, size)
    if conversion is None:
        return image
    return np.asarray(cv2.cvtColor(image, conversion), np.uint8)


def rgb_of_compressed(message: Any) -> RgbImage:
    """Decode a sensor_msgs/CompressedImage (JPEG, PNG) to RGB uint8 [H, W, 3].

    Raises `SourceError` if it cannot be decoded.
    """
    data = np.frombuffer(message.data, np.uint8)
    found = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if found is None:
        raise SourceError(
            f"The topic's images are '{message.format}', which cannot be decoded; publish JPEG, "
            "or the raw images."
        )
    return np.asarray(found[..., ::-1], np.uint8)


def stamp_of(message: Any) -> int:
    """The stamp in a message's header, nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


@dataclass(frozen=True, slots=True)
class RosTopic:
    """Images of a topic with the stamps of their headers, the newest each time.

    Iterate it once, for `LiveArrays`: pairs of RGB uint8 [H, W, 3] and nanoseconds, until `stopped`
    is set. A topic that ends in `/compressed` has CompressedImage messages, another one Image.
    Raises `SourceError` if no image came until then, or one cannot be used.
    """

    topic: str
    stopped: Event

    def check(self) -> None:
        """Raise `MissingExtraError` if ROS 2 is not there."""
        need("rclpy", _WHAT, _INSTALL)
        need("sensor_msgs.msg", _WHAT, _INSTALL)

    def __iter__(self) -> Iterator[tuple[RgbImage, int]]:
        rclpy = need("rclpy", _WHAT, _INSTALL)
        sensor = need("sensor_msgs.msg", _WHAT, _INSTALL)
        qos = need("rclpy.qos", _WHAT, _INSTALL)
        executors = need("rclpy.executors", _WHAT, _INSTALL)
        compressed = self.topic.endswith(_COMPRESSED)
        kind = sensor.CompressedImage if compressed else sensor.Image
        convert = rgb_of_compressed if compressed else rgb_of
        context = rclpy.Context()
        context.init()
        name = re.sub(r"\W+", "_", f"maskstream_in{self.topic}", flags=re.ASCII)
        node = rclpy.create_node(name, context=context)
        newest: deque[Any] = deque(maxlen=1)
        node.create_subscription(kind, self.topic, newest.append, qos.qos_profile_sensor_data)
        executor = executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        come = False
        try:
            while not self.stopped.is_set():
                executor.spin_once(timeout_sec=_WAKE_S)
                if newest:
                    come = True
                    message = newest.popleft()
                    yield convert(message), stamp_of(message)
            if not come:
                raise SourceError(
                    f"No image came on the topic {self.topic}; `ros2 topic hz {self.topic}` says "
                    "whether there are any."
                )
        finally:
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()
