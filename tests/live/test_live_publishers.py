"""Channels of live results: run lengths, JSON over TCP, MCAP, Foxglove, Zenoh, ROS 2 messages."""

import json
import re
import socket
import sys
import threading
from array import array
from contextlib import contextmanager, suppress
from queue import Empty, Queue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipeline.errors import ConfigError, MissingExtraError, PromptError
from maskstream.pipeline.live.commands import CommandQueue, Outcome, parse_command
from maskstream.pipeline.live.headers import Headers
from maskstream.pipeline.live.messages import mask_of_runs, result_message
from maskstream.pipeline.live.publishers import Channel, open_channel, open_channels, parse_channel
from maskstream.pipeline.live.publishers.jsonlines import JsonOverTcp
from maskstream.pipeline.live.publishers.ros2 import (
    MessageTypes,
    detections,
    header_of,
    label_image,
)
from tests.support.live_runs import HERE, result_of

SIZE = (36, 64)
TIMEOUT_S = 10
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: foxglove.sdk.v1\r\n\r\n"
)


@pytest.fixture
def shown():
    labels = np.zeros(SIZE, np.uint16)
    labels[4:20, 8:30] = 7
    labels[10:36, 40:64] = 300
    return result_of(labels)


@given(st.data())
def test_masks_survive_their_run_lengths(data):
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    cells = data.draw(st.lists(st.integers(0, 2), min_size=height * width, max_size=height * width))
    labels = np.array(cells, np.uint16).reshape(height, width)
    frame, result = result_of(labels)
    message = json.loads(json.dumps(result_message(frame, result)))
    for told in message["objects"][:-1]:
        assert np.array_equal(mask_of_runs(told["mask"]), labels == told["id"])
        assert sum(told["mask"]["counts"]) == height * width
    assert message["objects"][-1]["mask"] is None


def test_a_message_tells_both_times(shown):
    message = result_message(*shown)
    assert message["pts_s"] == pytest.approx(2.0005)
    assert message["captured_s"] == 1_700_000_000.25
    assert [o["state"] for o in message["objects"]] == ["TRACKED", "TRACKED", "OCCLUDED"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "one line of JSON"),
        ('{"type": "jump"}', "type"),
        ('{"type": "point"}', "needs 'xy'"),
        ('{"type": "remove"}', "needs 'object'"),
        ('{"type": "reset", "color": 1}', "color: no such key"),
    ],
)
def test_a_wrong_command_is_a_sentence(line, says):
    with pytest.raises(PromptError, match=says):
        parse_command(line)


def test_json_goes_to_all_who_connect_and_commands_come_back(shown):
    commands = CommandQueue()
    server = JsonOverTcp(HERE, commands.put)
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as client:
        lines = client.makefile("rw")
        lines.write('{"type": "point", "xy": [3, 4]}\n{"type": "dance"}\n')
        lines.flush()
        refused = json.loads(lines.readline())  # so the connection stands
        assert "error" in refused
        (asked,) = commands.take()
        assert asked.command.xy == (3, 4)
        asked.answer(Outcome(object=8))
        assert json.loads(lines.readline()) == {"type": "answer", "object": 8, "ok": True}
        server.write(*shown)
        assert json.loads(lines.readline()) == result_message(*shown)
        server.close(complete=True)
        assert lines.readline() == ""


def test_a_client_that_reads_nothing_holds_up_nobody(shown):
    server = JsonOverTcp(HERE, CommandQueue().put)
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as client:
        client.sendall(b"{}\n")
        client.makefile("r").readline()
        for _ in range(3000):
            server.write(*shown)
        server.close(complete=True)


@contextmanager
def joined(server):
    """A client that has been answered, so that the server has it, and its lines."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as client:
        client.sendall(b'{"id": "join"}\n')
        with client.makefile("rb") as lines:
            line = json.loads(lines.readline())
            while line["type"] != "answer":
                line = json.loads(lines.readline())
            assert line["id"] == "join"
            yield client, lines


def test_clients_join_and_leave_at_full_rate_and_each_gets_results_and_its_answers(shown):
    server, over = JsonOverTcp(HERE, CommandQueue().put), threading.Event()

    def write():
        while not over.is_set():
            server.write(*shown)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with joined(server) as (_, lines_of_one_that_stays):
            for _ in range(200):
                with joined(server) as (_, lines):  # no place is taken by those who left
                    assert json.loads(lines.readline())["type"] == "result"
            while json.loads(lines_of_one_that_stays.readline())["type"] != "result":
                pass
    finally:
        over.set()
        writer.join()
        server.close(complete=True)


def test_places_of_clients_that_left_are_free_also_without_results():
    server = JsonOverTcp(HERE, CommandQueue().put)
    for _ in range(50):
        with joined(server) as (client, lines):
            client.shutdown(socket.SHUT_WR)
            assert lines.read() == b""  # when the server has let it go
    server.close(complete=True)


def test_no_answer_is_lost_among_results(shown):
    queue = CommandQueue()
    server = JsonOverTcp(HERE, queue.put)
    with joined(server) as (client, lines):
        client.sendall(b"".join(b'{"type": "reset", "id": %d}\n' % n for n in range(90)) + b"?\n")
        assert "error" in json.loads(lines.readline())  # so all were taken
        for pending in queue.take():
            server.write(*shown)
            pending.answer(Outcome())
            server.write(*shown)
        server.close(complete=True)
        answers = [line for line in map(json.loads, lines) if line["type"] == "answer"]
    assert [answer["id"] for answer in answers] == list(range(90))


def test_a_line_that_is_too_long_is_one_command_that_is_refused():
    server = JsonOverTcp(HERE, CommandQueue().put)
    with joined(server) as (client, lines):
        client.sendall(b"[" * 60_000 + b'\n{"type": "dance", "id": 2}\n')
        assert "at most" in json.loads(lines.readline())["error"]
        assert json.loads(lines.readline())["id"] == 2
        server.close(complete=True)


def web_socket_message(operation, data):
    """A WebSocket message of less than 64 KiB as a client sends it: masked, here with zeros."""
    length = bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
    return bytes([0x80 | operation]) + length + bytes(4) + data


def test_foxglove_answers_commands():
    pytest.importorskip("foxglove")
    server = open_channel(Channel("foxglove", "0"), CommandQueue().put)
    offered = rb'"id":(\d+),"topic":"/answer"'
    channel = {"id": 1, "topic": "/command", "encoding": "json", "schemaName": ""}
    command = b"\x01" + (1).to_bytes(4, "little") + b'{"type": "dance", "id": "a"}'
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as client:
        client.sendall(UPGRADE.encode())
        received = b""
        while not (found := re.search(offered, received)):
            received += client.recv(65536)
        wanted = {"op": "subscribe", "subscriptions": [{"id": 0, "channelId": int(found[1])}]}
        for request in (wanted, {"op": "advertise", "channels": [channel]}):
            client.sendall(web_socket_message(1, json.dumps(request).encode()))
        client.sendall(web_socket_message(2, command))
        while not (answer := re.search(rb'{[^{]*"type": ?"answer".*}', received)):
            received += client.recv(65536)
    server.close(complete=True)
    assert json.loads(answer[0])["id"] == "a"
    assert "type" in json.loads(answer[0])["error"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("smoke:1", "no channel 'smoke'"),
        ("jsonl:harbor", "HOST:.PORT"),
        ("mcap", "needs a file"),
        ("foxglove:x", "HOST:.PORT"),
    ],
)
def test_a_wrong_channel_is_a_sentence(text, says):
    with pytest.raises(ConfigError, match=says):
        open_channels([Channel("jsonl", "0"), parse_channel(text)], CommandQueue().put)


def test_no_channel_stays_open_if_another_one_cannot_be_opened():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, used = 0, taken.getsockname()[1]
        channels = [Channel("jsonl", str(port)) for port in (free, used)]
        with pytest.raises(ConfigError, match="choose another port"):
            open_channels(channels, CommandQueue().put)
    assert not [t for t in threading.enumerate() if t.name.startswith("maskstream-jsonl")]


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("mcap:a.mcap", "foxglove", r"maskstream\[foxglove\]"),
        ("foxglove:0", "foxglove", r"maskstream\[foxglove\]"),
        ("zenoh", "zenoh", r"maskstream\[zenoh\]"),
        ("ros2", "rclpy", "setup.bash"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, kind, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=extra):
        open_channel(parse_channel(kind), CommandQueue().put)


def test_mcap_holds_images_boxes_labels_with_the_stamp_of_capture(shown, tmp_path):
    pytest.importorskip("foxglove")
    reader = pytest.importorskip("mcap.reader")
    file = tmp_path / "run.mcap"
    sink = open_channel(Channel("mcap", str(file)), CommandQueue().put)
    sink.write(*shown)
    sink.close(complete=True)
    with file.open("rb") as opened:
        messages = {
            channel.topic: (schema, message)
            for schema, channel, message in reader.make_reader(opened).iter_messages()
        }
    assert set(messages) == {"/camera", "/labels", "/objects", "/table"}
    assert {m.log_time for _, m in messages.values()} == {1_700_000_000_250_000_000}
    names = {topic: schema.name for topic, (schema, _) in messages.items() if schema}
    assert names["/labels"] == "foxglove.RawImage"
    labels = shown[1].labels.tobytes()
    assert labels in messages["/labels"][1].data
    stamp = b"\x08\x80\xe2\xcf\xaa\x06\x10" + b"\x80\xe5\x9a\x77"  # protobuf: s, 250 000 000 ns
    assert stamp in messages["/labels"][1].data
    assert json.loads(messages["/table"][1].data) == result_message(*shown)


def test_foxglove_serves_its_websocket(shown):
    pytest.importorskip("foxglove")
    server = open_channel(Channel("foxglove", "0"), CommandQueue().put)
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as client:
        client.sendall(UPGRADE.encode())
        received = b""
        while b"/labels" not in received and (data := client.recv(65536)):
            received += data
    server.write(*shown)
    server.close(complete=True)
    assert b"101 Switching" in received
    assert b"clientPublish" in received
    assert b"/labels" in received


def test_zenoh_carries_results_and_commands(shown, tmp_path):
    zenoh = pytest.importorskip("zenoh")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    alone = (
        '{mode: "peer", scouting: {multicast: {enabled: false}}, '
        '%s: {endpoints: ["tcp/127.0.0.1:%d"]}}'
    )
    file = tmp_path / "zenoh.json5"
    file.write_text(alone % ("listen", port))
    commands = CommandQueue()
    sink = open_channel(Channel("zenoh", f"robot/seen@{file}"), commands.put)
    with zenoh.open(zenoh.Config.from_json5(alone % ("connect", port))) as session:
        heard: Queue = Queue()
        session.declare_subscriber("robot/seen/*", lambda s: heard.put((str(s.key_expr)[11:], s)))
        key = ""
        while key != "answer":  # until the two have found each other
            session.put("robot/seen/command", "invalid command")
            with suppress(Empty):
                key, _ = heard.get(timeout=1)
                while key == "command":
                    key, _ = heard.get(timeout=1)
        session.put("robot/seen/command", '{"type": "reset"}')
        sink.write(*shown)
        found: dict = {}
        while not {"result", "labels"} <= found.keys():
            key, sample = heard.get(timeout=TIMEOUT_S)
            found[key] = sample
        for _ in range(TIMEOUT_S):
            if waiting := commands.take():
                break
            with suppress(Empty):
                heard.get(timeout=1)
    sink.close(complete=True)
    assert json.loads(found["result"].payload.to_bytes()) == result_message(*shown)
    assert found["labels"].payload.to_bytes().startswith(b"\x89PNG")
    about = json.loads(found["labels"].attachment.to_bytes())
    assert about == {
        "frame": 3,
        "stamp_ns": 1_700_000_000_250_000_000,
        "captured_ns": 1_700_000_000_250_000_000,
    }
    assert [asked.command.type for asked in waiting] == ["reset"]


def message(**fields):
    """A message class as rosidl makes them: these fields and no others, of these types."""

    class Message:
        __slots__ = tuple(fields)

        def __init__(self):
            for name, kind in fields.items():
                setattr(self, name, kind())

        def __setattr__(self, name, value):
            assert isinstance(value, array if fields[name] is uint8s else fields[name])
            object.__setattr__(self, name, value)

    return Message


def uint8s():
    return array("B")


# As the .msg files of std_msgs, sensor_msgs and vision_msgs 4 have them.
Header = message(stamp=message(sec=int, nanosec=int), frame_id=str)
Pose2D = message(position=message(x=float, y=float), theta=float)
ROS = MessageTypes(
    header=Header,
    image=message(
        header=Header,
        height=int,
        width=int,
        encoding=str,
        is_bigendian=int,
        step=int,
        data=uint8s,
    ),
    camera_info=message(
        header=Header,
        height=int,
        width=int,
        distortion_model=str,
        d=list,
        k=list,
        r=list,
        p=list,
    ),
    detections=message(header=Header, detections=list),
    detection=message(
        header=Header,
        results=list,
        bbox=message(center=Pose2D, size_x=float, size_y=float),
        id=str,
    ),
    hypothesis=message(hypothesis=message(class_id=str, score=float), pose=object),
)


def test_ros_messages_have_the_sources_header_and_one_label_image(shown):
    frame, result = shown
    header = header_of(frame, Headers("stream", "camera_optical"), ROS)
    assert (header.stamp.sec, header.stamp.nanosec) == (2, 500_000)
    assert header.frame_id == "camera_optical"
    image = label_image(result, header, ROS)
    assert (image.encoding, image.height, image.width, image.step) == ("mono16", 36, 64, 128)
    assert np.array_equal(np.frombuffer(image.data, "<u2").reshape(SIZE), result.labels)
    found = detections(result, header, ROS).detections
    assert [d.id for d in found] == ["7", "300"]  # what is out of sight is left out
    first = found[0]
    assert (first.bbox.center.position.x, first.bbox.size_x) == (19.0, 22.0)
    assert first.results[0].hypothesis.score == 0.9
    assert first.header is image.header is header
