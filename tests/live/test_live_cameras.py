"""Several cameras in one run: one model in turn, one governor, and all else for each of them."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from queue import Queue

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError, SourceError
from maskstream.pipeline.lab.bench.cameras import measure_cameras
from maskstream.pipeline.live.camera_names import name_cameras, own_path
from maskstream.pipeline.live.cameras import LiveCameras
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.keyframe_engine import KeyframeEngine
from maskstream.pipeline.live.session import CallbackSink
from maskstream.pipeline.live.shared_work import SharedWork
from maskstream.pipeline.models.open import locate_model
from maskstream.pipeline.store import MaskStore
from tests.support.clock import FakeClock
from tests.support.live_runs import PATIENT, SIZE, disc_of, images
from tests.support.media import moving_shapes, write_video

CONFIG = load_config(overrides=[*PATIENT, "live.stop_s=0.1"])
UNSEEDED = load_config(overrides=[*PATIENT, "live.stop_s=0.1", "seeding.enabled=false"])
NOBODY = "tcp://127.0.0.1:9"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(40, SIZE, shapes=2, seed=1)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["rtsp://a/1"], {"": "rtsp://a/1"}),
        (["front=rtsp://a/1"], {"front": "rtsp://a/1"}),
        (["0", "1"], {"camera1": "0", "camera2": "1"}),
        (["front=0", "1"], {"front": "0", "camera2": "1"}),
        (
            ["http://a/?x=1", "lavfi:color=red"],
            {"camera1": "http://a/?x=1", "camera2": "lavfi:color=red"},
        ),
    ],
)
def test_cameras_are_named(given, named):
    assert name_cameras(given) == named


@pytest.mark.parametrize(
    ("given", "says"), [(["a=0", "a=1"], "named 'a'"), (["-", "b=-"], "one camera only")]
)
def test_names_that_collide_are_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        name_cameras(given)


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("run.zarr", "run-front.zarr"),
        ("a.b/run", "a.b/run-front"),
        ("s3://store/run.zarr", "s3://store/run-front.zarr"),
        ("runs/", "runs/front/"),
        (".hidden", ".hidden-front"),
    ],
)
def test_each_camera_has_paths_of_its_own(path, own):
    assert own_path(path, "front") == own
    assert own_path(path, "") == path


class HeldThread:
    """In the place of the keyframes' thread: a keyframe is done when the test says so."""

    def __init__(self, *_):
        self.begun = []

    def submit(self, work):
        self.begun.append(Future())
        return self.begun[-1]


def test_keyframes_of_cameras_take_turns(monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor", HeldThread)
    clock = FakeClock()
    engine, served = KeyframeEngine(clock), []

    def ask(*cameras):
        for camera in cameras:
            if engine.is_turn(camera):
                engine.submit(camera, lambda: None)
                served.append(camera)

    ask("a", "b", "c", "d")
    assert served == ["a", "b"]  # one is computed, and one is ready
    for _ in range(6):
        engine._thread.begun.pop(0).set_result(None)
        ask("a", "d", "c", "b", "a")  # whoever comes first
    assert served == ["a", "b", "c", "d", "a", "b", "c", "d"]


def test_a_camera_that_has_fallen_silent_holds_up_no_turn(monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor", HeldThread)
    clock = FakeClock()
    engine = KeyframeEngine(clock)
    for camera in ("a", "b"):
        engine.submit(camera, lambda: None)
    assert not engine.is_turn("silent")
    for begun in engine._thread.begun:
        begun.set_result(None)
    assert not engine.is_turn("a")  # the other one has waited longer
    clock.now += 2
    assert engine.is_turn("a")


def test_cameras_share_networks_if_their_input_is_the_same():
    engine, model = KeyframeEngine(), locate_model(CONFIG)
    hd, full_hd, square = (
        engine.networks(CONFIG, model, size) for size in ((720, 1280), (1080, 1920), (480, 480))
    )
    engine.close()
    assert full_hd.segmenter._encoder is hd.segmenter._encoder
    assert square.segmenter._encoder is not hd.segmenter._encoder
    assert full_hd.memory is hd.memory is square.memory
    assert hd.segmenter.geometry.frame_hw == (720, 1280)
    assert full_hd.segmenter.geometry.frame_hw == (1080, 1920)


def test_one_governor_judges_all_cameras():
    shared = SharedWork(CONFIG)
    observe, observe_other = shared.observer(), shared.observer()
    for tick in range(20):  # all results are in time, but the other drops two of three frames
        observe(0.01, 0, tick / 10)
        observe_other(0.01, 2 * tick, tick / 10)
    assert shared.governor.state.level == 1
    assert "frames dropped" in shared.governor.history[0]


def run_until_each(cameras, done, **options):
    """Run until `done(name, live)` was true for every camera; all results by name."""
    taken = {name: [] for name in cameras.sessions}

    def take(name, live):
        taken[name].append(live)
        if done(name, live):
            cameras.sessions[name].stop()

    cameras.run(lambda name, info: [CallbackSink(lambda live: take(name, live))], **options)
    return taken


def test_every_camera_has_its_own_objects_and_its_own_commands(shapes):
    sources = {name: images(shapes, 3000) for name in ("front", "rear")}
    cameras = LiveCameras.open({name: come for name, (come, _) in sources.items()}, UNSEEDED)
    answers: Queue = Queue()
    point = Command(type="point", xy=disc_of(shapes, 0), id="a")
    cameras.sessions["rear"].command(point, answers.put)

    def seen(name, live):
        sources[name][1].release()
        return any(o.area for o in live.result.objects) or (name == "front" and not answers.empty())

    taken = run_until_each(cameras, seen)
    assert answers.get_nowait().object == 1
    assert {o.id for live in taken["rear"] for o in live.result.objects} == {1}
    assert not [o for live in taken["front"] for o in live.result.objects]
    assert not cameras.failures


def test_a_camera_that_fails_ends_alone(shapes):
    come, taken = images(shapes, 30)
    cameras = LiveCameras.open({"lost": NOBODY, "here": come}, UNSEEDED)
    told = []
    status = cameras.run(
        lambda name, info: [CallbackSink(lambda live: taken.release())],
        on_failure=lambda name, error: told.append((name, str(error))),
    )
    assert status["here"].frames == 30
    assert status["lost"].frames == 0
    assert isinstance(cameras.failures["lost"], SourceError)
    assert [name for name, _ in told] == ["lost"]
    assert "nothing listens" in told[0][1]


@pytest.mark.parametrize("callback", ["on_status", "on_failure"])
def test_an_error_of_a_callback_ends_all_cameras_with_it(callback):
    def fails(*_):
        raise ZeroDivisionError("in the callback")

    images: Queue = Queue()
    images.put((np.zeros((*SIZE, 3), np.uint8), 0))
    targets = {"lost": NOBODY, "silent": iter(images.get, None)}
    cameras = LiveCameras.open(targets, UNSEEDED)
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        cameras.run(**{callback: fails})
    images.put(None)


def test_a_loop_gets_the_newest_of_each_camera_and_the_failure_at_its_end(shapes):
    paced = {name: images(shapes, 12) for name in ("one", "two")}
    targets = {name: come for name, (come, _) in paced.items()}
    cameras = LiveCameras.open({**targets, "lost": NOBODY}, UNSEEDED)
    numbers = {name: [] for name in paced}
    with pytest.raises(SourceError, match="nothing listens"):
        for name, live in cameras:
            numbers[name].append(live.frame.index)
            paced[name][1].release()
    assert numbers == {"one": list(range(12)), "two": list(range(12))}


def test_an_async_loop_that_is_left_ends_all_cameras(shapes):
    come, taken = images(shapes, 100)
    silent: Queue = Queue()
    cameras = LiveCameras.open({"come": come, "silent": iter(silent.get, None)}, UNSEEDED)

    names = []

    async def first():
        async for name, live in cameras:
            taken.release()
            names.append(name)
            if live.frame.index >= 3:
                break

    asyncio.run(first())
    assert {*names} == {"come"}
    silent.put(None)
    taken.release(5)
    assert not [t for t in threading.enumerate() if t.name.startswith("maskstream-live")]


def live_options():
    return [option for setting in PATIENT for option in ("--set", setting)]


def test_the_command_runs_cameras_with_outputs_under_their_names(cli, shapes, tmp_path):
    pytest.importorskip("foxglove")
    reader = pytest.importorskip("mcap.reader")
    front = write_video(tmp_path / "front.mp4", shapes[0][:20])
    rear = write_video(tmp_path / "rear.mp4", shapes[0][20:])
    outputs = ["-o", tmp_path / "run.zarr", "--publish", f"mcap:{tmp_path / 'run.mcap'}"]
    cameras = [f"front={front}", f"rear={rear}", f"lost={NOBODY}"]
    options = ["--publish", "jsonl:-", "--json", *outputs, *live_options()]
    code, out, err = cli("live", *cameras, *options)
    assert code == 1
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert sentences[0].startswith("error: lost: tcp://127.0.0.1:9 cannot be opened")
    assert sentences[1:] == ["error: the run went on without cameras that failed (lost)"]
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["camera"] for line in lines if line["type"] == "failure"] == ["lost"]
    assert {line["camera"] for line in lines} == {"front", "rear", "lost"}
    assert [line["camera"] for line in lines if line["type"] == "summary"] == ["front", "rear"]
    for name in ("front", "rear"):
        store = MaskStore(tmp_path / f"run-{name}.zarr")
        results = [line for line in lines if (line["camera"], line["type"]) == (name, "result")]
        assert store.complete
        assert store.indices.tolist() == [line["frame"] for line in results]
        with (tmp_path / f"run-{name}.mcap").open("rb") as file:
            found = {c.topic: m.data for _, c, m in reader.make_reader(file).iter_messages()}
        assert found.keys() == {f"/{name}/{t}" for t in ("camera", "labels", "objects", "table")}
        assert f"{name}_camera".encode() in found[f"/{name}/labels"]  # its frame_id


def test_a_calibration_of_several_cameras_is_refused(cli, tmp_path):
    calibration = tmp_path / "camera.yaml"
    code, _, err = cli("live", NOBODY, NOBODY, "--camera-info", calibration, *live_options())
    assert (code, "there are several" in err) == (1, True)


def test_a_run_whose_cameras_all_fail_is_an_error(cli):
    code, out, err = cli("live", NOBODY, NOBODY, "--quiet", *live_options())
    assert (code, out) == (1, "")
    assert [line.partition(": tcp")[0] for line in sorted(err.splitlines())] == [
        "error: all cameras failed",
        "error: camera1",
        "error: camera2",
    ]


def test_a_signal_ends_all_cameras_also_silent_ones(shapes, tmp_path):
    clip = write_video(tmp_path / "long.mp4", shapes[0][:2], pts=[0, 90_000 * 3600])
    settings = [*live_options(), "--set", "live.stop_s=0.1"]
    command = [sys.executable, "-c", "from maskstream.pipeline.cli import main; main()", "live"]
    arguments = [f"clip={clip}", "pipe=-", "--size", "160x90", "--no-seed", "--quiet", *settings]
    with subprocess.Popen(
        [*command, *arguments, "--publish", "jsonl:-", "-o", str(tmp_path / "run.zarr")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        run.stdin.write(bytes(90 * 160 * 3))
        run.stdin.flush()
        come = {json.loads(run.stdout.readline())["camera"] for _ in range(2)}
        assert come == {"clip", "pipe"}
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE_S) == 1
        assert b"the source of pipe fell silent" in run.stderr.read()
        run.stdin.close()
    for name in ("clip", "pipe"):
        assert MaskStore(tmp_path / f"run-{name}.zarr").complete


def test_the_bench_of_cameras_measures_each(shapes, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", shapes[0][:8])
    row = measure_cameras(UNSEEDED, clip, (54, 96), 0.5, 2, warm_up_s=0)
    assert row.cameras == len(row.fps) == len(row.p95_ms) == 2
    assert min(row.fps) > 0
