"""A power cut keeps of a disk what was synced, no more: every commit must survive on that alone."""

import os
import stat
from pathlib import Path

import pytest

from maskstream.pipeline.store import MaskStore, check_store
from tests.support.stores import assert_equal, expected, files, let_go, write, writer


class SyncedDisk:
    """What `fsync` made durable: contents of files, and which names a folder has, by inode."""

    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}

    def fsync(self, file: int) -> None:
        """Note what the file or folder holds now, in the place of writing it to the disk."""
        status, path = os.fstat(file), Path(f"/proc/self/fd/{file}")
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(file) as entries:
                self._names[status.st_ino] = {e.name: e.inode() for e in entries}
        else:
            self._contents[status.st_ino] = path.read_bytes()

    def after_power_cut(self, folder: Path, target: Path) -> Path:
        """Make `target` what is left of a folder whose own name was synced."""
        self._restore(folder.stat().st_ino, target)
        return target

    def _restore(self, inode: int, target: Path) -> None:
        names = self._names.get(inode)
        if names is None:  # a file; empty if only its name got to the disk
            target.write_bytes(self._contents.get(inode, b""))
            return
        target.mkdir()
        for name, child in names.items():
            self._restore(child, target / name)


@pytest.fixture
def disk(monkeypatch):
    synced = SyncedDisk()
    monkeypatch.setattr(os, "fsync", synced.fsync)
    return synced


@pytest.mark.parametrize("begun", ["new", "resumed", "taken back"])
def test_power_cut_keeps_every_commit_whole(disk, tmp_path, begun):
    path = tmp_path / "o.zarr"
    first = {"new": 0, "resumed": 61, "taken back": 70}[begun]
    if first:
        write(path, range(first), complete=begun == "taken back")
    store = writer(path, "create" if begun == "new" else "resume", frames_per_commit=5)
    for index in range(first, 135):
        if index == first or index % 32 in (0, 1, 31):
            left = disk.after_power_cut(path, tmp_path / f"{index}.zarr")
            assert store.committed_frames <= len(MaskStore(left)) <= index
            assert check_store(left).problems == []
        store.append(expected(index))
    let_go(store)


def test_store_goes_on_after_a_power_cut(disk, tmp_path):
    store = writer(tmp_path / "o.zarr", frames_per_commit=5)
    for index in range(133):
        store.append(expected(index))
    left = disk.after_power_cut(tmp_path / "o.zarr", tmp_path / "left.zarr")
    let_go(store)
    assert len(MaskStore(left)) == 133 - (133 - 128) % 5
    write(left, range(len(MaskStore(left)), 150), "resume")
    write(tmp_path / "whole.zarr", range(150))
    assert files(left) == files(tmp_path / "whole.zarr")
    assert_equal(MaskStore(left).frame(149), expected(149))


def test_finished_store_survives_a_power_cut(disk, tmp_path):
    write(tmp_path / "o.zarr", range(70))
    left = disk.after_power_cut(tmp_path / "o.zarr", tmp_path / "left.zarr")
    assert files(left) == files(tmp_path / "o.zarr")
    assert MaskStore(left).complete
