"""Headers of published messages: stamps of capture, coordinate frame, calibration."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from maskstream.pipeline.cli.live_request import LiveRequest
from maskstream.pipeline.config import LiveConfig, load_config
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.camera_info import load_camera_info
from maskstream.pipeline.live.commands import CommandQueue
from maskstream.pipeline.live.governor import Governor, budget_steps
from maskstream.pipeline.live.headers import Headers
from maskstream.pipeline.live.messages import result_message
from maskstream.pipeline.live.publishers import Channel, ChannelOptions, open_channel
from maskstream.pipeline.live.publishers.ros2 import camera_info, header_of
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.live.status import Meter
from maskstream.pipeline.sources.arrivals import sender_time_s
from maskstream.pipeline.sources.live import open_live
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import LiveArrays
from maskstream.pipeline.types import Arrival
from tests.live.test_live_catch_up import B_FRAMES, Ticking
from tests.live.test_live_publishers import ROS
from tests.support.clock import FakeClock
from tests.support.live_runs import PATIENT, result_of
from tests.support.media import moving_shapes, read, write_video
from tests.support.rtsp_server import missing, rtsp_server

WHY = missing()
# As ROS' camera_calibration writes it (camera_calibration_parsers' example).
CALIBRATION = """
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [500, 0, 320, 0, 510, 240, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [490, 0, 318, 0, 0, 495, 241, 0, 0, 0, 1, 0]
"""


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION)
    return path


@pytest.fixture
def shown():
    return result_of(np.zeros((24, 32), np.uint16))


@pytest.mark.parametrize(
    ("stamps", "arrival", "stamp_ns"),
    [
        ("capture", Arrival(10.0, 1.7e9), 1_700_000_000_000_000_000),
        ("capture", Arrival(10.0, 1.7e9, ntp_s=1.6e9), 1_700_000_000_000_000_000),
        ("capture", Arrival(10.0, 1.7e9, given_ns=123), 123),
        ("stream", Arrival(10.0, 1.7e9), 2_000_500_000),
        ("ntp", Arrival(10.0, 1.7e9, ntp_s=1.6e9), 1_600_000_000_000_000_000),
        ("ntp", Arrival(10.0, 1.7e9), 1_700_000_000_000_000_000),
    ],
)
def test_stamps_are_those_of_capture_unless_others_are_asked_for(shown, stamps, arrival, stamp_ns):
    frame = replace(shown[0], arrival=arrival)
    assert Headers(stamps).stamp_ns(frame) == stamp_ns
    header = header_of(frame, Headers(stamps, "optical"), ROS)
    assert (header.stamp.sec, header.stamp.nanosec) == divmod(stamp_ns, 10**9)
    assert header.frame_id == "optical"


def test_a_source_without_times_has_stamps_of_capture(shown):
    frame = replace(shown[0], pts=None)
    assert Headers("stream").stamp_ns(frame) == 1_700_000_000_250_000_000


def test_what_a_program_states_is_kept_to_the_nanosecond():
    stamps = [1_700_000_000_123_456_789, 1_700_000_000_223_456_789]
    images = iter([(np.zeros((8, 8, 3), np.uint8), stamp) for stamp in stamps])
    _, _, frames = read(LiveArrays(images, clock=FakeClock()))
    assert [Headers().stamp_ns(frame) for frame in frames] == stamps


def test_options_and_configuration_say_what_is_in_headers(calibration):
    given = LiveRequest(
        "rtsp://a/1", stamps="ntp", frame_id="front: 1", camera_info=calibration
    ).settings
    config = load_config(overrides=[*PATIENT, *given])
    headers = LiveSession.open("rtsp://a/1", config).headers
    assert (headers.stamps, headers.frame_id) == ("ntp", "front: 1")
    assert headers.camera.size_hw == (480, 640)
    assert Headers.of(LiveConfig()) == Headers("capture", "camera", None)


def test_capture_by_the_senders_clock_is_refused_where_no_sender_states_it():
    with pytest.raises(ConfigError, match="--stamps ntp is for RTSP"):
        LiveSession.open("tcp://127.0.0.1:9", load_config(overrides=["live.stamps=ntp"]))


@pytest.mark.skipif(bool(WHY), reason=f"no RTSP server: {WHY}")
def test_rtsp_states_when_a_frame_was_captured():
    """By the same machine's clock here, so it is some milliseconds before the arrival."""
    with rtsp_server() as server, open_live(server.url).source.open() as reader:
        stated = None
        for frame, _ in zip(reader, range(200), strict=False):
            if frame.arrival.ntp_s is not None:
                stated = frame.arrival
                break
    assert stated is not None
    assert 0 < stated.unix_s - stated.ntp_s < 30
    assert result_message(*result_of(np.zeros((8, 8), np.uint16)))["ntp_s"] is None


@pytest.mark.parametrize(("ntp_s", "told"), [(None, {}), (5000.5, [500.0])])
def test_the_status_tells_how_old_results_are_by_the_senders_clock(shown, ntp_s, told):
    clock = FakeClock()
    clock.now += 1.0
    meter = Meter(Governor(budget_steps(load_config()), 0.1), clock, lambda: 0)
    frame = replace(shown[0], arrival=Arrival(1000.9, 5000.9, ntp_s=ntp_s))
    meter.write(frame, shown[1])
    assert sorted(set(meter.since_capture_ms.values())) == list(told)
    assert meter.recent_ms["p50"] == 100.0


def test_a_packet_that_states_no_capture_time_has_none(tmp_path):
    clip = write_video(tmp_path / "a.ts", moving_shapes(3, (36, 64))[0])
    with LiveStream(str(clip)).open() as reader:
        assert {frame.arrival.ntp_s for frame in reader} == {None}
    assert sender_time_s(object()) is None


def test_log_times_of_mcap_do_not_go_back_with_b_frames(tmp_path):
    pytest.importorskip("foxglove")
    make_reader = pytest.importorskip("mcap.reader").make_reader
    clip = write_video(tmp_path / "b.ts", moving_shapes(30, (36, 64))[0], options=B_FRAMES)
    path = tmp_path / "run.mcap"
    sink = open_channel(Channel("mcap", str(path)), CommandQueue().put)
    _, result = result_of(np.zeros((36, 64), np.uint16))
    _, _, frames = read(LiveStream(str(clip), clock=Ticking()))
    for frame in frames:
        sink.write(frame, replace(result, index=frame.index, pts=frame.pts))
    sink.close(complete=True)
    with path.open("rb") as file:
        logged = [m.log_time for _, c, m in make_reader(file).iter_messages(log_time_order=False)]
    assert logged == sorted(logged)
    assert len(set(logged)) == 30


def test_a_calibration_is_published_with_every_result(calibration, shown, tmp_path):
    pytest.importorskip("foxglove")
    make_reader = pytest.importorskip("mcap.reader").make_reader
    camera = load_camera_info(calibration)
    path = tmp_path / "run.mcap"
    options = ChannelOptions(headers=Headers(camera=camera))
    sink = open_channel(Channel("mcap", str(path)), CommandQueue().put, options)
    for _ in range(2):
        sink.write(*shown)
    sink.close(complete=True)
    with path.open("rb") as file:
        found = [
            (schema.name, message.data)
            for schema, _, message in make_reader(file).iter_messages(["/calibration"])
        ]
    assert [name for name, _ in found] == ["foxglove.CameraCalibration"] * 2
    focal_length = np.array(camera.at((24, 32)).k[:1]).tobytes()
    assert focal_length in found[0][1]


def test_ros_has_the_calibration_of_images_of_this_size(calibration, shown):
    camera = load_camera_info(calibration).at((240, 320))
    header = header_of(shown[0], Headers(), ROS)
    message = camera_info(camera, header, ROS)
    assert (message.height, message.width) == (240, 320)
    assert message.distortion_model == "plumb_bob"
    assert message.d == [0.1, -0.2, 0.001, 0.002, 0.0]
    assert message.k == [250, 0, 160, 0, 255, 120, 0, 0, 1]
    assert message.r == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert message.p == [245, 0, 159, 0, 0, 247.5, 120.5, 0, 0, 0, 1, 0]
    assert message.header is header


def test_a_calibration_of_another_aspect_is_refused_before_the_first_frame(calibration):
    settings = [*PATIENT, "seeding.enabled=false", f"live.camera_info={calibration}"]
    images = iter([np.zeros((90, 160, 3), np.uint8)] * 2)
    session = LiveSession.open(images, load_config(overrides=settings))
    with pytest.raises(ConfigError, match="calibrated at 640x480, but the source is 160x90"):
        session.run()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"camera_matrix": None}, "calibration of ROS"),
        ({"image_width": "wide"}, "wide"),
        ({"image_width": 0}, "no pixels"),
        ({"projection_matrix": {"data": [1, 2]}}, "projection_matrix has 2 values, not 12"),
    ],
)
def test_a_wrong_calibration_is_a_sentence(tmp_path, change, says):
    path = tmp_path / "camera.yaml"
    path.write_text(json.dumps(yaml.safe_load(io.StringIO(CALIBRATION)) | change))
    with pytest.raises(ConfigError, match=says):
        load_camera_info(path)


@pytest.mark.parametrize(
    ("text", "says"), [("- 1", "keys and values"), ("a: 1", "image_height"), ("{", "not YAML")]
)
def test_another_file_is_no_calibration(tmp_path, text, says):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_camera_info(path)
    with pytest.raises(ConfigError, match="cannot read the calibration"):
        load_camera_info(tmp_path / "none.yaml")
