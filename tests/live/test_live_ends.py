"""Live runs end when they are told to, whatever the source, the outputs and the callbacks do."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from queue import Queue

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import SinkHangsError
from maskstream.pipeline.live.session import CallbackSink, LiveSession
from maskstream.pipeline.sources.timed import Replay
from maskstream.pipeline.store import MaskStore
from tests.support.live_runs import PATIENT, SIZE
from tests.support.media import moving_shapes, read, write_video

SETTINGS = [*PATIENT, "seeding.enabled=false", "live.stop_s=0.1"]
IMAGE = np.full((*SIZE, 3), 90, np.uint8)
PATIENCE_S = 60


class Kept:
    """A sink that remembers how it was closed."""

    def __init__(self):
        self.written, self.closed = 0, []

    def write(self, frame, result):
        self.written += 1

    def idle(self):
        pass

    def close(self, *, complete):
        self.closed.append(complete)


def silent_after(count, *settings):
    """A session on a program's images, of which only so many come; and the way to release it."""
    images: Queue = Queue()
    for number in range(count):
        images.put((IMAGE, number * 10**8))
    config = load_config(overrides=[*SETTINGS, *settings])
    session = LiveSession.open(iter(images.get, None), config)
    return session, lambda: images.put(None)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("ends", ["stop", "duration"])
def test_a_source_that_falls_silent_is_ended_and_its_thread_left_behind(count, ends):
    session, release = silent_after(count)
    kept = Kept()

    def written(live):
        if ends == "stop":
            threading.Thread(target=session.stop).start()

    if count == 0 and ends == "stop":
        threading.Timer(0.05, session.stop).start()
    duration_s = 0.2 if ends == "duration" else None
    status = session.run(lambda info: [CallbackSink(written), kept], duration_s=duration_s)
    release()
    assert status.abandoned == ("source",)
    assert kept.written == status.frames <= count
    assert kept.closed == [True] * count


def test_a_run_that_was_stopped_before_it_began_ends_at_once():
    session, release = silent_after(0)
    session.stop()
    assert session.run().frames == 0
    release()


def test_an_output_that_hangs_is_left_behind_and_the_others_are_closed():
    session, release = silent_after(50, "live.close_s=0.1")
    never, kept = threading.Event(), Kept()

    def hang(live):
        threading.Thread(target=session.stop).start()
        never.wait(PATIENCE_S)

    with pytest.raises(SinkHangsError, match="CallbackSink"):
        session.run(lambda info: [kept, CallbackSink(hang)])
    assert kept.closed == [False]
    never.set()
    release()


def test_an_error_of_on_status_ends_the_run_with_it_and_sinks_are_closed():
    session, release = silent_after(1)
    kept = Kept()

    def fails(status):
        raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError, match="in the callback"):
        session.run(lambda info: [kept], on_status=fails)
    release()
    assert kept.closed == [True]


def test_an_on_status_that_hangs_does_not_keep_the_duration_from_ending_the_run(monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.session._TELLER_END_S", 0.1)
    session, release = silent_after(1)
    never = threading.Event()
    status = session.run(on_status=lambda status: never.wait(PATIENCE_S), duration_s=1.5)
    never.set()
    release()
    assert status.abandoned == ("source", "status")


def test_canceling_an_async_loop_raises_its_own_error():
    session, release = silent_after(1)

    async def collect(started):
        async for _ in session:
            started.set()

    async def cancel():
        started = asyncio.Event()
        task = asyncio.create_task(collect(started))
        await started.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    release()
    assert session.status().frames == 1


def test_a_replay_that_waits_for_a_late_frame_is_woken(tmp_path):
    from maskstream.pipeline.sources.live import open_live
    from tests.support.media import write_video

    clip = write_video(tmp_path / "a.mp4", moving_shapes(2, (36, 64))[0], pts=[0, 3_600_000])
    live = open_live(clip)
    assert isinstance(live.source, Replay)
    live.stopped.set()
    assert len(read(live.source)[2]) == 1


def live_on_a_pipe(*options, **given):
    """The command on raw frames of standard input, in a process of its own."""
    settings = [option for setting in SETTINGS for option in ("--set", setting)]
    arguments = ["live", "-", "--size", "160x90", "--no-seed", *options, *settings]
    return subprocess.Popen(
        [sys.executable, "-c", "from maskstream.pipeline.cli import main; main()", *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **given,
    )


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("clip", 0, b""),
        (b"no video at all" * 999, 1, b"holds no video"),
        (b"", 1, b"holds no video"),
    ],
)
def test_standard_input_holds_a_container_or_a_sentence_says_what_it_may(
    tmp_path, content, code, says
):
    if content == "clip":
        clip = write_video(tmp_path / "a.mkv", moving_shapes(6, (90, 160))[0])
        content = clip.read_bytes()
    settings = [option for setting in SETTINGS for option in ("--set", setting)]
    arguments = ["live", "-", "-o", str(tmp_path / "o.zarr"), "--no-seed", "--quiet", *settings]
    run = subprocess.run(
        [sys.executable, "-c", "from maskstream.pipeline.cli import main; main()", *arguments],
        input=content,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (run.returncode, says in run.stderr) == (code, True), run.stderr
    if code == 0:
        assert len(MaskStore(tmp_path / "o.zarr")) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_silent_pipe_with_outputs_complete_and_an_exit_code(tmp_path, number):
    reader = pytest.importorskip("mcap.reader")
    file = tmp_path / "run.mcap"
    with live_on_a_pipe(
        "--publish", f"mcap:{file}", "--publish", "jsonl:-", "--quiet", stdout=subprocess.PIPE
    ) as run:
        run.stdin.write(IMAGE.tobytes())
        run.stdin.flush()
        assert json.loads(run.stdout.readline())["frame"] == 0
        run.send_signal(number)
        assert run.wait(PATIENCE_S) == 1
        assert b"fell silent" in run.stderr.read()
        run.stdin.close()
    with file.open("rb") as opened:
        assert reader.make_reader(opened).get_summary() is not None  # which the footer leads to


@pytest.mark.parametrize("options", [["--json"], ["--publish", "jsonl:-", "--quiet"]])
def test_a_reader_of_the_output_that_leaves_ends_the_run(options):
    with live_on_a_pipe(*options, stdout=subprocess.PIPE) as run:
        over = threading.Event()

        def feed():
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    run.stdin.write(IMAGE.tobytes())
                    run.stdin.flush()

        feeder = threading.Thread(target=feed)
        feeder.start()
        run.stdout.readline()
        run.stdout.close()
        code = run.wait(PATIENCE_S)
        over.set()
        feeder.join()
        assert code == 1
        assert b"Traceback" not in run.stderr.read()
        with contextlib.suppress(OSError):
            run.stdin.close()
