"""Live runs on a real MPEG-TS stream of the loopback, and on pictures that a program gives."""

import asyncio
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import SourceError, StoreError
from maskstream.pipeline.lab.bench.loopback import LoopbackCamera
from maskstream.pipeline.lab.bench.soak import bench_soak
from maskstream.pipeline.live.preview import PreviewServer
from maskstream.pipeline.live.session import LiveSession, live_config
from maskstream.pipeline.store import MaskStore
from maskstream.trackers.state import TrackState
from tests.support.live_runs import HERE, PATIENT, RATE, SIZE, images, run_until
from tests.support.media import moving_shapes, write_video


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(60, SIZE, shapes=2, seed=1)


@pytest.fixture
def camera(shapes):
    frames, _ = shapes
    with LoopbackCamera([*frames, *frames[-2:0:-1]], RATE) as camera:
        yield camera


def test_live_follows_a_stream_and_tells_how_it_goes(cli, camera, tmp_path):
    store, kept = tmp_path / "live.zarr", tmp_path / "kept.mkv"
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    code, out, err = cli(
        "live",
        camera.url,
        "--duration",
        "4",
        "--json",
        "-o",
        store,
        "--record",
        kept,
        "--publish",
        "jsonl:-",
        *settings,
    )
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    results = [line for line in lines if line["type"] == "result"]
    summary = lines[-1]
    assert summary["type"] == "summary"
    assert {"frames", "fps", "drops", "keyframes", "latency_ms", "rss_mb"} <= summary.keys()
    assert summary["latency_ms"].keys() == {"p50", "p95", "p99"}
    assert summary["rss_mb"].keys() == {"start", "end"}
    governor = summary["governor"]  # which a busy machine makes work: frames are dropped then
    assert 0 <= governor["level"] <= governor["levels"]
    assert summary["frames"] == len(results) > 4
    assert any(line["type"] == "status" for line in lines)
    stored = MaskStore(store)
    assert stored.complete
    assert stored.indices.tolist() == [r["frame"] for r in results]
    assert stored.captured_s.tolist() == [r["captured_s"] for r in results]
    pts = [r["pts_s"] for r in results]
    assert pts == sorted(pts)
    assert kept.stat().st_size > 0


def test_objects_that_nobody_gave_are_found_and_kept(shapes, camera):
    session = LiveSession.open(camera.url, load_config(overrides=PATIENT))
    seen = []

    def for_a_while(live):
        seen.append({o.id for o in live.result.objects if o.area})
        return len(seen) > 20 and all(seen[-20:])

    taken, _ = run_until(session, for_a_while)
    assert seen[-1] & seen[-20]
    assert taken[-1].frame.arrival is not None


def test_ctrl_c_ends_a_run_well(cli, camera, tmp_path, monkeypatch):
    status, once = LiveSession.status, threading.Lock()

    def interrupted(self):
        if once.acquire(blocking=False):  # never released: a second signal would end the process
            os.kill(os.getpid(), signal.SIGINT)
        return status(self)

    monkeypatch.setattr(LiveSession, "status", interrupted)
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    code, out, err = cli("live", camera.url, "--json", "-o", tmp_path / "a.zarr", *settings)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["type"] == "summary"
    assert MaskStore(tmp_path / "a.zarr").complete


def test_a_source_that_is_not_there_is_one_sentence(cli):
    code, _, err = cli("live", "tcp://127.0.0.1:9", "--quiet")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot be opened" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--publish", "smoke"], "no channel 'smoke'"),
        (["--duration", "soon"], "10m"),
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--input", "x"], "KEY=VALUE"),
        (["--retain", "10m"], "--retain needs -o"),
        (["--set", "live.input_shares=[0.5]"], "descend from 1"),
    ],
)
def test_wrong_options_are_one_sentence(cli, options, says):
    code, _, err = cli("live", "lavfi:testsrc2", "--quiet", *options)
    assert code == 1
    assert says in err


def test_a_loop_gets_results_and_leaving_it_ends_the_run(shapes):
    come, taken = images(shapes, 100)
    session = LiveSession.open(come, load_config(overrides=[*PATIENT, "seeding.enabled=false"]))
    numbers = []
    for live in session:
        taken.release()
        numbers.append(live.frame.index)
        if len(numbers) == 5:
            taken.release(5)
            break
    assert numbers == sorted(numbers)
    assert not [t for t in threading.enumerate() if t.name.startswith("maskstream-live")]


def test_an_async_loop_gets_results(shapes):
    come, taken = images(shapes, 8)
    session = LiveSession.open(come, load_config(overrides=[*PATIENT, "seeding.enabled=false"]))

    async def collect():
        numbers = []
        async for live in session:
            taken.release()
            numbers.append(live.result.index)
        return numbers

    assert asyncio.run(collect()) == list(range(8))


def test_a_loop_raises_what_went_wrong():
    session = LiveSession.open(iter([np.zeros((4, 4), np.uint8)]), load_config(overrides=PATIENT))
    with pytest.raises(SourceError, match="RGB uint8"):
        list(session)


def test_a_slow_model_holds_up_no_frame(shapes, monkeypatch):
    """The keyframe of frame 0 takes as long as twenty frames, and is then shown where they are."""
    from maskstream.pipeline.segmenter.model import OpenVinoSegmenter

    come, taken = images(shapes, 200)
    release, encoded = threading.Event(), threading.Event()
    encode = OpenVinoSegmenter.encode

    def slow(self, frame):
        assert release.wait(30)
        found = encode(self, frame)
        encoded.set()
        return found

    monkeypatch.setattr(OpenVinoSegmenter, "encode", slow)
    session = LiveSession.open(come, load_config(overrides=[*PATIENT, "live.hang_s=0.001"]))

    def shown(live):
        taken.release()
        if live.frame.index == 20:
            assert "encode" in session.status().hanging
            release.set()
            assert encoded.wait(30)
        return any(o.area for o in live.result.objects)

    results, _ = run_until(session, shown)
    last = results[-1]
    assert last.frame.index > 20
    assert not any(o.area for live in results[:-1] for o in live.result.objects)
    if last.frame.index >= len(shapes[1]):
        return  # a slow machine: the shapes have jumped back
    for found in last.result.objects:
        mask = last.result.mask(found.id)
        truth = shapes[1][last.frame.index]
        best = max((mask & (truth == n)).sum() / (mask | (truth == n)).sum() for n in (1, 2))
        assert best > 0.5 or found.state is not TrackState.TRACKED or mask.sum() < 60


def test_the_page_shows_the_run_and_takes_commands(shapes):
    come, taken = images(shapes, 100)
    session = LiveSession.open(come, load_config(overrides=[*PATIENT, "seeding.enabled=false"]))
    told = {}

    def get(url, data=None):
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.read(30_000)

    def look(url):
        told["page"] = get(url)
        told["status"] = json.loads(get(url + "status"))
        told["command"] = json.loads(get(url + "command", b'{"type": "reset"}'))
        with urllib.request.urlopen(url + "stream", timeout=20) as stream:  # noqa: S310
            told["stream"] = stream.read(200)
        with pytest.raises(urllib.error.HTTPError):
            get(url + "nothing")
        session.stop()

    def behind(info):
        preview = PreviewServer(HERE, lambda: session.status().to_json(), session.commands.put)
        viewer = threading.Thread(target=look, args=(preview.url,))
        viewer.start()
        told["viewer"] = viewer
        return [preview]

    def paced(live):
        threading.Timer(0.02, taken.release).start()
        return not told["viewer"].is_alive()

    run_until(session, paced, behind=behind)
    assert b"maskstream live" in told["page"]
    assert told["status"]["governor"]["level"] == 0
    assert told["command"]["ok"]
    assert b"image/jpeg" in told["stream"]


def test_metrics_are_served(shapes):
    client = pytest.importorskip("prometheus_client")
    from maskstream.pipeline.live.metrics import MetricsServer

    come, taken = images(shapes, 10)
    session = LiveSession.open(come, load_config(overrides=[*PATIENT, "seeding.enabled=false"]))
    run_until(session, lambda live: taken.release())
    server = MetricsServer(HERE, lambda: {"": session.status()})
    try:
        with urllib.request.urlopen(server.url, timeout=20) as answer:  # noqa: S310
            text = answer.read().decode()
    finally:
        server.close()
    assert "maskstream_frames_total 10.0" in text
    assert 'maskstream_latency_seconds{quantile="0.95"}' in text
    assert client is not None


def test_a_live_run_is_the_same_pipeline_with_another_queue(shapes):
    config = live_config(load_config(overrides=["seeding.prompts_first=500"]))
    assert config.queue.policy == "latest"
    assert config.seeding.prompts_first == config.live.prompts_first
    assert isinstance(LiveSession.open(images(shapes, 1)[0], config).pipeline, Pipeline)


def test_a_replayed_file_starts_when_the_model_is_there(shapes, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", shapes[0][:2], pts=[0, 2000])
    session = LiveSession.open(clip, load_config(overrides=[*PATIENT, "seeding.enabled=false"]))
    results, summary = run_until(session, lambda live: False)
    assert [live.frame.pts_s for live in results] == [0, 2]
    assert summary.drops == 0


def test_a_sink_that_cannot_be_opened_ends_a_run(shapes):
    come, _ = images(shapes, 10)
    session = LiveSession.open(come, load_config(overrides=PATIENT))

    def full(info):
        raise StoreError("no room")

    with pytest.raises(StoreError, match="no room"):
        session.run(full)


def test_a_soak_counts_and_comes_to_an_end():
    quick = [*PATIENT, "keyframes.interval=30", "seeding.max_objects=2", "live.prompts_first=16"]
    report = bench_soak(load_config(overrides=quick), 100, (54, 96))
    assert report.frames == 100
    assert report.connections >= 20
    assert report.gaps >= 19
    assert len(report.samples) == 20
    assert report.growth.handles <= 0
    assert [sample.frames for sample in report.shown] == [5, 50, 100]
    assert json.dumps(report.to_json())


def test_a_soak_ends_when_its_time_is_over():
    quick = [*PATIENT, "keyframes.interval=30", "seeding.enabled=false"]
    report = bench_soak(load_config(overrides=quick), 10**9, (54, 96), max_s=1.0)
    assert 0 < report.frames < 10**9


def test_robotics_is_documented():
    docs = Path(__file__).parents[2] / "docs"
    text = "".join((docs / room / "live.md").read_text() for room in ("guide", "reference"))
    for word in ("foxglove:", "ros2:", "zenoh:", "header", "captured_s", "LiveSession"):
        assert word in text
