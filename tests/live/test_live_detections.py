"""Detections in a live run: its own detector's, and those that a robot's own detector sends."""

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.live.commands import Command, CommandIntake, CommandQueue, parse_command
from maskstream.pipeline.live.live_store import LiveStore, writer_opener
from maskstream.pipeline.live.messages import result_message
from maskstream.pipeline.live.publishers import Channel, open_channel
from maskstream.pipeline.live.publishers.ros2 import detections_command
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.store import MaskStore
from tests.support.labeled_shapes import CLASSES, labeled_clip
from tests.support.live_runs import PATIENT, RATE, SIZE, AtOnce, images, run_until
from tests.support.media import moving_shapes

SHAPES = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"
UNSEEDED = [*PATIENT, "seeding.enabled=false"]


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(60, SIZE, shapes=2, seed=1)


def box_of(labels, number):
    y, x = np.nonzero(labels == number)
    return (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))


def sent(box, label="cup", score=0.9, **named):
    given = {"xyxy": box, "label": label, "score": score}
    return Command(type="detections", detections=[given], **named)


@pytest.mark.parametrize("time", ["pts_s", "stamp_s"])
def test_detections_of_past_frames_name_objects_once_and_are_followed(shapes, time):
    come, taken = images(shapes, 400)
    session = LiveSession.open(come, load_config(overrides=UNSEEDED))
    answers, told = [], threading.Event()

    def answer(outcome):
        answers.append(outcome.refused)
        told.set()

    def send(index):
        seen = index - 6  # a robot's detector is late
        box = box_of(shapes[1][seen % 60], 2)
        told.clear()
        session.command(sent(box, **{time: (seen + 30) / RATE}), answer)

    def steps(live):
        taken.release()
        index = live.frame.index
        if index in (12, 40, 70):
            send(index)
        if not told.is_set() and index >= 12:
            told.wait(0.3)
        if index == 75:
            session.command(sent((900, 1, 950, 9)), answer)
        return index >= 100 and len(answers) == 4

    results, _ = run_until(session, steps)
    assert answers[:3] == ["", "", ""]
    assert "no part inside the image" in answers[3]
    last = results[-1]
    (found,) = last.result.objects
    assert (found.id, found.label, found.detector_score) == (1, "cup", 0.9)
    truth = shapes[1][last.frame.index % 60] == 2
    mask = last.result.mask(1)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.6
    (published,) = result_message(last.frame, last.result)["objects"]
    assert (published["class"], published["detector_score"]) == ("cup", 0.9)


def test_a_live_run_has_its_own_detector_and_stores_the_classes(tmp_path):
    come, taken = images(labeled_clip(60, seed=2), 600)
    config = load_config(overrides=[*UNSEEDED, f"detector.model={SHAPES}", "detector.every=4"])
    session = LiveSession.open(come, config)

    def behind(info):
        return [LiveStore(writer_opener(session.pipeline, info)(tmp_path / "o.zarr"))]

    def steps(live):
        taken.release()
        return {o.label for o in live.result.objects if o.area} == set(CLASSES)

    run_until(session, steps, behind=behind)
    stored = MaskStore(tmp_path / "o.zarr")
    assert {o.label for o in stored.objects()} == set(CLASSES)
    assert stored.attributes["detector"]["name"] == SHAPES.name


def test_a_detection_that_is_due_asks_for_a_keyframe(monkeypatch):
    name = "maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor"
    monkeypatch.setattr(name, AtOnce)
    come, taken = images(labeled_clip(60, seed=2), 600)
    overrides = [*UNSEEDED, f"detector.model={SHAPES}", "detector.every=4"]
    overrides += ["keyframes.interval=60", "keyframes.motion_max=1"]
    session = LiveSession.open(come, load_config(overrides=overrides))
    keyframes = []

    def steps(live):
        taken.release()
        if live.result.keyframe:
            keyframes.append(live.frame.index)
        return live.frame.index >= 16

    run_until(session, steps)
    assert np.diff(keyframes).tolist()[:3] == [4, 4, 4]


BOX = {"xyxy": [1, 2, 3, 4], "label": "a"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({}, "need each other"),
        ({"type": "box", "xyxy": [1, 2, 3, 4], "detections": []}, "need each other"),
        ({"detections": [BOX | {"xyxy": [1, 2, 3]}]}, "detections.0.xyxy"),
        ({"detections": [{"xyxy": [1, 2, 3, 4]}]}, "detections.0.label"),
        ({"detections": [BOX | {"score": 2}]}, "detections.0.score"),
        ({"detections": [BOX] * 101}, "at most 100"),
    ],
)
def test_wrong_detections_are_a_sentence(line, says):
    answers = []
    CommandIntake(lambda pending: None).receive(
        json.dumps({"type": "detections"} | line), answers.append
    )
    assert says in answers[0].refused


def ros_message(*boxes, sec=0, nanosec=0):
    """A vision_msgs/Detection2DArray (version 4) of (center x, y, width, height, classes)."""
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
        detections=[
            SimpleNamespace(
                bbox=SimpleNamespace(
                    center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=0.0),
                    size_x=width,
                    size_y=height,
                ),
                results=[
                    SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))
                    for name, score in classes.items()
                ],
            )
            for x, y, width, height, classes in boxes
        ],
    )


def test_ros_detections_become_a_command_for_the_frame_of_their_stamp():
    box = (20.0, 30.0, 10.0, 8.0, {"cat": 0.2, "dog": 0.7})
    command = parse_command(detections_command(ros_message(box, sec=3, nanosec=500_000_000)))
    assert command.stamp_s == 3.5
    (found,) = command.detections
    assert (found.xyxy, found.label, found.score) == ((15, 26, 25, 34), "dog", 0.7)
    assert parse_command(detections_command(ros_message(box))).stamp_s is None  # the newest frame
    with pytest.raises(ValueError, match="empty"):
        detections_command(ros_message((1.0, 1.0, 1.0, 1.0, {})))


def test_zenoh_takes_detections(tmp_path):
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
    sink = open_channel(Channel("zenoh", f"robot@{file}"), commands.put)
    line = json.dumps({"detections": [{"xyxy": [1, 2, 30, 40], "label": "cup"}]})
    waiting = []
    with zenoh.open(zenoh.Config.from_json5(alone % ("connect", port))) as session:
        heard: Queue = Queue()
        session.declare_subscriber("robot/answer", lambda sample: heard.put(sample))
        for _ in range(60):  # until the two have found each other
            session.put("robot/command", "invalid command")
            with suppress(Empty):
                heard.get(timeout=1)
                break
        session.put("robot/detections_in", line)
        for _ in range(60):
            waiting = commands.take()
            if waiting:
                break
            with suppress(Empty):
                heard.get(timeout=0.2)
    sink.close(complete=True)
    assert [w.command.detections[0].label for w in waiting] == ["cup"]
