"""Messages of ROS 2 in and out, through CDR by their `.msg` files; there is no ROS here."""

import json
import sys
from io import BytesIO
from queue import Empty, Queue
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError, MissingExtraError, SourceError
from maskstream.pipeline.live.publishers.ros2 import (
    MessageTypes,
    detections,
    header_of,
    label_image,
)
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.ros2 import rgb_of, rgb_of_compressed, stamp_of
from tests.support.live_runs import result_of

writer = pytest.importorskip("mcap_ros2.writer")
reader = pytest.importorskip("mcap_ros2.reader")

# The .msg files of std_msgs, sensor_msgs, geometry_msgs and vision_msgs 4, without comments.
PARTS = {
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
    "geometry_msgs/Point": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Quaternion": "float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1",
    "geometry_msgs/Pose": "Point position\nQuaternion orientation",
    "geometry_msgs/PoseWithCovariance": "Pose pose\nfloat64[36] covariance",
    "vision_msgs/Point2D": "float64 x\nfloat64 y",
    "vision_msgs/Pose2D": "Point2D position\nfloat64 theta",
    "vision_msgs/BoundingBox2D": "Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose",
    "vision_msgs/Detection2D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\n"
    "BoundingBox2D bbox\nstring id",
}
IMAGE = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\n"
    "uint32 step\nuint8[] data"
)
COMPRESSED = "std_msgs/Header header\nstring format\nuint8[] data"
DETECTIONS = "std_msgs/Header header\nDetection2D[] detections"


def through_cdr(name, definition, message):
    """What another node gets of a message: encoded as CDR and decoded again."""
    texts = [definition, *(f"MSG: {part}\n{text}" for part, text in PARTS.items())]
    recorded = BytesIO()
    written = writer.Writer(recorded)
    schema = written.register_msgdef(name, f"\n{'=' * 80}\n".join(texts))
    written.write_message("/topic", schema, message)
    written.finish()
    recorded.seek(0)
    (read,) = reader.read_ros2_messages(recorded)
    return read.ros_msg


class Fields(SimpleNamespace):
    """A message with default fields, which rosidl would make."""


def new_header():
    return Fields(stamp=Fields(sec=0, nanosec=0), frame_id="")


def new_image():
    return Fields(
        header=new_header(), height=0, width=0, encoding="", is_bigendian=0, step=0, data=b""
    )


def new_detection():
    center = Fields(position=Fields(x=0.0, y=0.0), theta=0.0)
    bbox = Fields(center=center, size_x=0.0, size_y=0.0)
    return Fields(header=new_header(), results=[], bbox=bbox, id="")


def new_hypothesis():
    position, orientation = Fields(x=0.0, y=0.0, z=0.0), Fields(x=0.0, y=0.0, z=0.0, w=1.0)
    pose = Fields(pose=Fields(position=position, orientation=orientation), covariance=[0.0] * 36)
    return Fields(hypothesis=Fields(class_id="", score=0.0), pose=pose)


TYPES = MessageTypes(
    new_header,
    new_image,
    lambda: Fields(header=new_header(), detections=[]),
    new_detection,
    new_hypothesis,
)


@pytest.fixture
def shown():
    labels = np.zeros((36, 64), np.uint16)
    labels[4:20, 8:30] = 7
    labels[10:36, 40:64] = 300
    return result_of(labels)


def test_detections_have_the_track_in_id_and_no_state_for_a_class(shown):
    header = header_of(*shown, TYPES, "camera")
    sent = detections(shown[1], header, TYPES)
    got = through_cdr("vision_msgs/Detection2DArray", DETECTIONS, sent)
    assert (got.header.stamp.sec, got.header.stamp.nanosec) == (2, 500_000)
    assert [found.id for found in got.detections] == ["7", "300"]
    assert [found.results[0].hypothesis.class_id for found in got.detections] == ["", ""]
    assert got.detections[0].results[0].hypothesis.score == 0.9
    box = got.detections[0].bbox
    assert (box.center.position.x, box.center.position.y) == (19.0, 12.0)
    assert (box.size_x, box.size_y) == (22.0, 16.0)


def test_the_label_image_is_read_as_it_was_sent(shown):
    sent = label_image(shown[1], header_of(*shown, TYPES, "camera"), TYPES)
    got = through_cdr("sensor_msgs/Image", IMAGE, sent)
    assert (got.encoding, got.height, got.width, got.step) == ("mono16", 36, 64, 128)
    assert np.array_equal(np.frombuffer(got.data, "<u2").reshape(36, 64), shown[1].labels)


def image_message(pixels, encoding, *, padding=0, big=0):
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    message = new_image()
    message.header.stamp = Fields(sec=3, nanosec=5)
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian = encoding, big
    message.step, message.data = rows.shape[1], rows.tobytes()
    return through_cdr("sensor_msgs/Image", IMAGE, message)


RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GRAY = np.repeat(RGB[..., :1], 3, axis=2)
ALPHA = np.full((6, 8, 1), 9, np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("pixels", "encoding", "big", "rgb"),
    [
        (RGB, "rgb8", 0, RGB),
        (RGB[..., ::-1], "bgr8", 0, RGB),
        (np.concatenate([RGB, ALPHA], 2), "rgba8", 0, RGB),
        (np.concatenate([RGB[..., ::-1], ALPHA], 2), "bgra8", 0, RGB),
        (GRAY[..., 0], "mono8", 0, GRAY),
        (GRAY[..., 0].astype("<u2") * 256 + 77, "mono16", 0, GRAY),
        ((GRAY[..., 0] * np.uint16(256) + 77).astype(">u2"), "mono16", 1, GRAY),
    ],
)
def test_an_image_message_is_taken_whatever_its_encoding(pixels, encoding, big, rgb, padding):
    message = image_message(np.ascontiguousarray(pixels), encoding, padding=padding, big=big)
    assert np.array_equal(rgb_of(message), rgb)
    assert stamp_of(message) == 3_000_000_005


@pytest.mark.parametrize("encoding", ["yuyv", "yuv422_yuy2", "uyvy", "yuv422"])
def test_subsampled_colors_are_converted(encoding):
    y, u, v = 120, 90, 200
    first = (y, u, y, v) if "yu" in encoding[:3] and encoding != "yuv422" else (u, y, v, y)
    pixels = np.tile(np.array(first, np.uint8), (4, 2)).reshape(4, 4, 2)
    red, green, blue = rgb_of(image_message(pixels, encoding))[0, 0].astype(int)
    assert abs(red - (1.164 * (y - 16) + 1.596 * (v - 128))) < 3
    assert abs(blue - (1.164 * (y - 16) + 2.018 * (u - 128))) < 3
    assert green < red


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"])
def test_a_bayer_image_of_one_color_has_this_color(encoding):
    color = {"r": 200, "g": 100, "b": 40}
    tile = np.array([color[c] for c in encoding[6:10]], np.uint8).reshape(2, 2)
    rgb = rgb_of(image_message(np.tile(tile, (4, 4)), encoding))
    assert rgb[4, 4].tolist() == [200, 100, 40]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Fields(height=2, width=2, step=8, encoding="32FC1", data=bytes(16)), "'32FC1'"),
        (Fields(height=2, width=2, step=6, encoding="rgb8", data=bytes(7)), "need more"),
        (Fields(height=2, width=2, step=2, encoding="rgb8", data=bytes(99)), "need more"),
        (Fields(height=0, width=0, step=0, encoding="rgb8", data=b""), "need more"),
    ],
)
def test_an_image_that_cannot_be_used_is_a_sentence(message, says):
    with pytest.raises(SourceError, match=says):
        rgb_of(message)


def test_compressed_images_are_decoded():
    data = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    sent = Fields(header=new_header(), format="png", data=data)
    got = through_cdr("sensor_msgs/CompressedImage", COMPRESSED, sent)
    assert np.array_equal(rgb_of_compressed(got), RGB)
    with pytest.raises(SourceError, match="'h264'"):
        rgb_of_compressed(Fields(format="h264", data=b"nonsense"))


def test_a_topic_needs_ros_and_a_name_and_no_options_of_cameras(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(MissingExtraError, match=r"setup\.bash"):
        open_live("ros2:/camera/image_raw")
    with pytest.raises(ConfigError, match="needs a topic"):
        open_live("ros2:")
    with pytest.raises(ConfigError, match="leave --input"):
        open_live("ros2:/camera", InputOptions(rate=30))
    code, _, err = cli("live", "ros2:/camera/image_raw", "--quiet")
    assert (code, err.count("\n")) == (1, 1)


@pytest.fixture
def ros(monkeypatch):
    """Stands in for rclpy: `messages` go to the subscription; `ended` says what was ended."""
    world = SimpleNamespace(messages=Queue(), topics=[], ended=[])

    class Executor:
        def __init__(self, context):
            self.node = None

        def add_node(self, node):
            self.node = node

        def spin_once(self, timeout_sec):
            try:
                self.node.callback(world.messages.get(timeout=timeout_sec))
            except Empty:
                return

        def shutdown(self):
            world.ended.append("executor")

    class Node:
        def create_subscription(self, kind, topic, callback, qos):
            self.callback = callback
            world.topics.append((kind, topic, qos))

        def destroy_node(self):
            world.ended.append("node")

    class Context:
        def init(self):
            pass

        def try_shutdown(self):
            world.ended.append("context")

    modules = {
        "rclpy": {"Context": Context, "create_node": lambda name, context: Node()},
        "rclpy.qos": {"qos_profile_sensor_data": "sensor data"},
        "rclpy.executors": {"SingleThreadedExecutor": Executor},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": "Image", "CompressedImage": "CompressedImage"},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return world


def test_a_topic_is_read_until_the_run_is_stopped(ros):
    live = open_live("ros2:/camera/image_raw")
    stamps = []
    ros.messages.put(image_message(RGB, "rgb8"))
    with live.source.open() as opened:
        assert opened.info.size_hw == (6, 8)
        assert opened.info.clock == "stream"
        assert opened.info.name == "ros2:/camera/image_raw"
        for frame in opened:
            stamps.append(frame.pts)
            assert np.array_equal(frame.rgb(), RGB)
            if len(stamps) == 3:
                live.stopped.set()
            else:
                ros.messages.put(image_message(RGB, "rgb8"))
    assert stamps == [3_000_000_005] * 3
    assert ros.topics == [("Image", "/camera/image_raw", "sensor data")]
    assert ros.ended == ["executor", "node", "context"]
    assert json.dumps(opened.info.name)


def test_a_silent_topic_is_ended_at_once(ros):
    live = open_live("ros2:/camera/image_raw/compressed")
    live.stopped.set()
    with pytest.raises(SourceError, match="No image came"), live.source.open():
        pass
    assert ros.topics[0][0] == "CompressedImage"
    assert ros.ended == ["executor", "node", "context"]
