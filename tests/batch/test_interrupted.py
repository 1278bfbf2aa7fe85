"""Batches that are interrupted: Ctrl-C, killed workers and killed drivers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    frames, _ = moving_shapes(80, (90, 160), shapes=2, seed=1)
    for number in range(3):
        write_video(folder / f"c{number}.mp4", frames[: 80 - number])
    return folder


class Batch:
    """The command in a process of its own."""

    def __init__(self, clips, out, *options):
        words = ["batch", str(clips), "-o", str(out), "--json", *options]
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "run_pipeline.py", *words, "--set", "store.commit_frames=1"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.events = []

    def until(self, name):
        """Read events up to one of this name."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == name:
                return self.events[-1]
        raise AssertionError(f"no event {name} in {self.events}")

    def until_frames(self, store):
        """Wait until a store has frames; returns the number of the process that writes it."""
        while True:
            opened = MaskStore.open_if_exists(store)
            if opened is not None and len(opened):
                return json.loads((store / "labels/lock").read_text())["pid"]

    def end(self):
        """The exit code and the counts."""
        with self.process:
            self.events += [json.loads(line) for line in self.process.stdout]
        return self.process.returncode, self.events[-1]


@pytest.mark.slow
def test_ctrl_c_lets_running_videos_end_and_the_next_batch_does_the_rest(clips, tmp_path):
    batch = Batch(clips, tmp_path, "--workers", "1")
    batch.until("started")
    os.kill(batch.process.pid, signal.SIGINT)
    code, end = batch.end()
    assert (code, end["done"], end["failed"]) == (130, 1, 0)
    assert MaskStore(tmp_path / "c0.zarr").complete
    assert not (tmp_path / "c1.zarr").exists()
    code, end = Batch(clips, tmp_path, "--workers", "1").end()
    assert (code, end["skipped"], end["done"]) == (0, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_to_the_whole_group_lets_running_videos_end(clips, tmp_path, number, begun):
    """A terminal, `timeout` and systemd send it to the workers, too, also while they start."""
    batch = Batch(clips, tmp_path, "--workers", "2")
    for _ in range(2):
        batch.until("started")
    if begun:
        batch.until_frames(tmp_path / "c0.zarr")
    os.killpg(batch.process.pid, number)
    code, end = batch.end()
    assert (code, end["done"], end["failed"], end["retried"]) == (130, 2, 0, 0)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_reports_what_ran(clips, tmp_path):
    batch = Batch(clips, tmp_path, "--workers", "1")
    batch.until("started")
    batch.until_frames(tmp_path / "c0.zarr")
    for _ in range(2):
        os.kill(batch.process.pid, signal.SIGINT)
        time.sleep(0.1)  # two signals at once are one
    code, end = batch.end()
    assert (code, end["done"], end["failed"]) == (130, 0, 1)
    (row,) = pyarrow.parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert (row["output"], row["state"], row["failure"]) == ("c0", "failed", "lost")
    assert "was stopped" in row["error"]
    assert not MaskStore(tmp_path / "c0.zarr").complete


@pytest.mark.slow
def test_a_killed_worker_costs_what_it_had_not_committed(clips, tmp_path):
    batch = Batch(clips / "c0.mp4", tmp_path / "killed", "--workers", "1")
    batch.until("started")
    os.kill(batch.until_frames(tmp_path / "killed/c0.zarr"), signal.SIGKILL)
    code, end = batch.end()
    assert (code, end["done"], end["retried"]) == (0, 1, 1)
    assert "SIGKILL" in next(e for e in batch.events if e["event"] == "retried")["error"]
    assert next(e for e in batch.events if e["event"] == "done")["run"] < 80
    assert Batch(clips / "c0.mp4", tmp_path / "whole", "--workers", "1").end()[0] == 0
    assert_same_masks(tmp_path / "killed/c0.zarr", tmp_path / "whole/c0.zarr")


@pytest.mark.slow
def test_a_killed_driver_is_followed_by_another(clips, tmp_path):
    first = Batch(clips, tmp_path, "--workers", "1")
    first.until("started")
    first.until_frames(tmp_path / "c0.zarr")
    with first.process:
        first.process.kill()
    code, end = Batch(clips, tmp_path, "--workers", "1").end()
    assert (code, end["done"]) == (0, 3)
    assert end["frames"] < 80 + 79 + 78
    assert MaskStore(tmp_path / "c0.zarr").complete


@pytest.mark.slow
def test_a_worker_killed_while_it_joins_parts_is_followed_by_another(tmp_path):
    scenes = [moving_shapes(80, (90, 160), shapes=2, seed=seed)[0] for seed in (1, 2)]
    film = write_video(tmp_path / "film.mp4", np.concatenate([scenes[0], 255 - scenes[1]]))
    words = ("--workers", "1", "--split-shots", "--part-min", "0.4")
    batch = Batch(film, tmp_path / "killed", *words)
    batch.until("started")
    os.kill(batch.until_frames(tmp_path / "killed/film.zarr"), signal.SIGKILL)
    code, end = batch.end()
    assert (code, end["done"], end["retried"]) == (0, 1, 1)
    assert "SIGKILL" in next(e for e in batch.events if e["event"] == "retried")["error"]
    assert next(e for e in batch.events if e["event"] == "done")["run"] == 0  # parts are complete
    assert Batch(film, tmp_path / "whole", *words).end()[0] == 0
    assert_same_masks(tmp_path / "killed/film.zarr", tmp_path / "whole/film.zarr")


def assert_same_masks(store, other):
    one, two = MaskStore(store), MaskStore(other)
    assert (len(one), one.complete) == (len(two), two.complete)
    assert all((a.labels == b.labels).all() for a, b in zip(one, two, strict=True))
