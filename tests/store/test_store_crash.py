"""Whatever ends a writer, what was committed reads back and the next writer goes on from there."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipeline.errors import StoreCorruptError, StoreError, StoreLockedError
from maskstream.pipeline.store import MaskStore
from tests.support.stores import (
    BIG,
    abandon,
    assert_equal,
    expected,
    files,
    result,
    write,
    writer,
)

KILLS = 50
SOON_S = 0.1  # a kill comes within so many seconds of the process's start, or of its first frame


def assert_holds(path: Path, frames: int, since: int = 0) -> None:
    """The store's frames are those from 0 to `frames`."""
    masks = MaskStore(path)
    assert len(masks) == frames
    assert masks.indices.tolist() == list(range(frames))
    for row in range(since, frames):
        assert_equal(masks.frame(row), expected(row))


def write_until_killed(path: Path, committed, resumed) -> None:
    """What a killed process does: resume, write on, say how many frames are committed."""
    store = writer(path, "resume", frames_per_commit=7)
    resumed.set()
    for index in range(store.committed_frames, BIG):
        store.append(expected(index))
        committed.value = store.committed_frames


def test_kill_at_any_instant_loses_nothing_and_the_end_is_bit_for_bit(tmp_path):
    """Real processes, killed at random instants: while they create, append, finish, resume."""
    path = tmp_path / "o.zarr"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.store.test_store_crash"])
    committed = processes.Value("q", 0, lock=False)  # a killed process would keep the lock
    instants = random.Random(0)  # noqa: S311
    checked = 0
    for kill in range(KILLS):
        resumed = processes.Event()
        child = processes.Process(target=write_until_killed, args=(path, committed, resumed))
        child.start()
        if kill % 2:
            resumed.wait(timeout=60)
        child.join(instants.uniform(0, SOON_S))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        if committed.value:
            frames = len(MaskStore(path))
            assert frames >= committed.value
            assert not MaskStore(path).complete
            assert_holds(path, frames, since=max(0, checked - 64))
            checked = frames
    assert checked > 64
    frames = checked + 10
    write(path, range(checked, frames), "resume")
    assert_holds(path, frames)
    write(tmp_path / "whole.zarr", range(frames))
    assert files(path) == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize("frames", [0, 1, 63, 64, 65, 128, 150])
@pytest.mark.parametrize("end", ["killed", "closed"])
def test_resumed_store_equals_an_uninterrupted_one_bit_for_bit(tmp_path, frames, end):
    path = tmp_path / "o.zarr"
    if end == "killed":
        abandon(path, range(frames))
    else:
        write(path, range(frames), complete=False)
    assert_holds(path, frames)
    resumed = writer(path, "resume")
    assert resumed.committed_frames == frames
    assert resumed.last_committed_index == (frames - 1 if frames else None)
    for index in range(frames, 170):
        resumed.append(expected(index))
    resumed.close(complete=True)
    write(tmp_path / "whole.zarr", range(170))
    assert files(path) == files(tmp_path / "whole.zarr")
    assert MaskStore(path).complete


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A killed writer's store of 70 frames, one closed there, and one of 130 frames."""
    folder = tmp_path_factory.mktemp("stores")
    abandon(folder / "killed.zarr", range(70))
    write(folder / "closed.zarr", range(70), complete=False)
    write(folder / "whole.zarr", range(130))
    return folder


@pytest.fixture
def no_power_cut(monkeypatch):
    """Nothing here needs a disk that keeps its promises, and `fsync` takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@settings(max_examples=20, deadline=None)
@given(cut=st.floats(0, 1), junk=st.binary(max_size=80))
def test_journal_torn_anywhere_reads_up_to_there(stores, tmp_path_factory, cut, junk):
    path = tmp_path_factory.mktemp("torn") / "o.zarr"
    shutil.copytree(stores / "killed.zarr", path)
    journal = path / "labels" / "journal.64"
    data = journal.read_bytes()
    journal.write_bytes(data[: int(cut * (len(data) - 1))] + junk)
    frames = len(MaskStore(path))
    assert 64 <= frames < 70
    assert_holds(path, frames, since=60)
    write(path, range(frames, 130), "resume")
    assert files(path) == files(stores / "whole.zarr")


class StoppedError(Exception):
    """The writer ended at this step."""


@pytest.mark.usefixtures("no_power_cut")
def test_end_between_any_two_steps_of_finishing_and_taking_back(stores, tmp_path, monkeypatch):
    """Every step that changes a file is once the one that was not reached any more."""
    from maskstream.pipeline.store import place

    whole = files(stores / "whole.zarr")
    for ends_at in range(1000):
        path = tmp_path / f"{ends_at}.zarr"
        shutil.copytree(stores / "closed.zarr", path)  # its last shard is to be taken back
        steps = iter(range(ends_at))

        def step(method, steps=steps):
            def call(self, key, *arguments, **options):
                alike = key.startswith(("objects/", "hidden/"))  # written as "frames/" is
                if not alike and next(steps, None) is None:
                    raise StoppedError
                return method(self, key, *arguments, **options)

            return call

        with monkeypatch.context() as patched:
            patched.setattr(place.LocalPlace, "replace", step(place.LocalPlace.replace))
            patched.setattr(place.LocalPlace, "delete", step(place.LocalPlace.delete))
            patched.setattr(place._LocalJournal, "finish", step(place._LocalJournal.finish))
            try:
                write(path, range(70, 130), "resume")
                reached = True
            except StoppedError:
                reached = False
        if reached:
            break
        frames = len(MaskStore(path))
        assert frames >= 70
        assert_holds(path, frames, since=60)
        write(path, range(frames, 130), "resume")
        assert files(path) == whole, ends_at
        shutil.rmtree(path)
    assert ends_at > 20


def test_second_writer_is_refused_and_a_dead_ones_lock_is_not_in_the_way(tmp_path):
    path = tmp_path / "o.zarr"
    with writer(path) as store:
        store.append(result(0))
        for mode in ("resume", "overwrite"):
            with pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
                writer(path, mode)
        assert len(MaskStore(path)) == 1
    code = (
        "from tests.support.stores import *; import os;"
        f"s = writer({str(path)!r}, 'resume'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    write(path, range(1, 3), "resume")
    assert len(MaskStore(path)) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_a_sentence_and_what_was_written_stays(small_disk):
    path = small_disk / "o.zarr"
    written = 0
    store = writer(path)
    with pytest.raises(StoreError, match="No space left"):
        for index in range(BIG):
            store.append(expected(index))
            written = index + 1
    with pytest.raises(StoreError, match="--resume"):
        store.append(expected(written))
    store.close(complete=True)
    assert written > 64
    assert len(MaskStore(path)) >= written
    assert not MaskStore(path).complete
    frames = len(MaskStore(path))
    assert_holds(path, frames)
    with pytest.raises(StoreError, match="No space left"):
        write(path, range(frames, BIG), "resume")
    assert_holds(path, len(MaskStore(path)))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    frames = len(MaskStore(path))
    write(path, range(frames, frames + 70), "resume")
    assert_holds(path, frames + 70)
    assert MaskStore(path).complete


def test_removed_folder_is_a_sentence_at_the_next_frame(tmp_path):
    store = writer(tmp_path / "o.zarr")
    store.append(result(0))
    shutil.rmtree(tmp_path / "o.zarr")
    with pytest.raises(StoreError, match="was removed"):
        store.append(result(1))
    store.close(complete=False)
    assert not (tmp_path / "o.zarr").exists()


def test_damaged_frame_is_an_error_and_the_others_read(tmp_path):
    path = tmp_path / "o.zarr"
    write(path, range(70))
    shard = path / "labels" / "c.0.0.0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    masks = MaskStore(path)
    damaged = []
    for row in range(70):
        try:
            assert_equal(masks.frame(row), expected(row))
        except StoreCorruptError:
            damaged.append(row)
    assert len(damaged) == 1
