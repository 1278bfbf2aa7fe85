"""A full disk, here a limit to the size of files, under each of the outputs of a live run."""

import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import SinkError
from maskstream.pipeline.live.commands import CommandQueue
from maskstream.pipeline.live.live_store import LiveStore, writer_opener
from maskstream.pipeline.live.outputs import Outputs
from maskstream.pipeline.live.publishers import Channel, open_channel
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import LiveArrays
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import SourceInfo
from tests.support.live_runs import PATIENT, SIZE, result_of
from tests.support.media import read, write_video

NOISE = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3), np.uint8)
LIMIT = 40_000  # bytes


@contextmanager
def full_disk():
    """Files of this process cannot grow beyond the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("strict", [False, True])
def test_an_mcap_that_cannot_grow_is_said_once_and_closed(tmp_path, caplog, strict):
    pytest.importorskip("foxglove")
    labels = np.random.default_rng(0).integers(0, 3, (400, 600)).astype(np.uint16)
    shown, outputs = result_of(labels), Outputs(strict=strict)
    opened = open_channel(Channel("mcap", str(tmp_path / "a.mcap")), CommandQueue().put)
    (sink,) = outputs.guard(["mcap:a.mcap"], [opened])
    with full_disk():
        if strict:
            with pytest.raises(SinkError, match=r"mcap:a\.mcap failed \(File too large\)"):
                for _ in range(20):
                    sink.write(*shown)
        else:
            for _ in range(20):
                sink.write(*shown)
        sink.close(complete=True)
    assert outputs.failed == {"mcap:a.mcap": "File too large"}
    assert len(caplog.records) == (not strict)


def test_recordings_that_cannot_grow_end_and_the_frames_go_on(tmp_path, caplog):
    clip = write_video(tmp_path / "a.mp4", NOISE, options={"crf": "1"})
    with full_disk():
        _, packets, of_packets = read(LiveStream(str(clip), record=tmp_path / "packets.mkv"))
        _, images, of_images = read(LiveArrays(iter(NOISE), record=tmp_path / "images.mkv"))
    assert len(of_packets) == len(of_images) == 8
    assert packets.recording_failed == images.recording_failed == "File too large"
    assert len(caplog.records) == 2


def test_a_store_that_cannot_grow_is_closed_and_keeps_what_it_has(tmp_path):
    settings = [*PATIENT, "store.commit_frames=1"]
    pipeline = LiveSession.open(iter([]), load_config(overrides=settings)).pipeline
    info = SourceInfo("noise", (400, 600), Fraction(1, 90_000), live=True)
    store = LiveStore(writer_opener(pipeline, info)(tmp_path / "a.zarr"))
    outputs = Outputs()
    (sink,) = outputs.guard(["a.zarr"], [store])
    labels = np.zeros((400, 600), np.uint16)
    sink.write(*result_of(labels, 0, 0))
    labels += np.random.default_rng(0).integers(0, 3, (400, 600)).astype(np.uint16)
    with full_disk():
        for number in range(1, 20):
            sink.write(*result_of(labels, number, 3000 * number))
            sink.idle()
        sink.close(complete=True)
    assert "File too large" in outputs.failed["a.zarr"]
    assert MaskStore(tmp_path / "a.zarr").indices.tolist()[:1] == [0]


def test_a_run_with_a_recording_that_cannot_grow_goes_on_and_says_so(tmp_path):
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    command = [sys.executable, "-c", "from maskstream.pipeline.cli import main; main()", "live"]
    options = ["-", "--size", "160x90", "--no-seed", "--json", "--record", str(tmp_path / "a.mkv")]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 4; exec "$0" "$@"', *command, *options, *settings],
        input=NOISE.tobytes() * 3,
        capture_output=True,
        timeout=120,
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert summary["failed"] == {"record": "File too large"}
    assert summary["frames"] > 0
    assert b"Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"error: the run went on without")
