"""Stores behind URLs: fsspec's memory, and a server that speaks S3."""

import json
import subprocess

import fsspec
import numpy as np
import pytest

from maskstream.pipeline.errors import StoreError, StoreLockedError
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.store.remote import LOCK_STALE_S, RemotePlace
from tests.support.stores import assert_equal, expected, let_go, result, write, writer


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield "memory://masks/o.zarr"
    files.store.clear()


@pytest.fixture
def bucket(s3):
    return "s3://films/o.zarr"


@pytest.mark.parametrize("service", ["memory", "bucket"])
def test_written_abandoned_resumed_and_read(request, service):
    url = request.getfixturevalue(service)
    store = writer(url, frames_per_commit=5)
    for index in range(73):
        store.append(expected(index))
    assert store.committed_frames == 69
    assert len(MaskStore(url)) == 69  # what a commit has not sent is not there yet
    let_go(store)
    resumed = writer(url, "resume")
    assert resumed.committed_frames == 69
    for index in range(69, 140):
        resumed.append(expected(index))
    resumed.close(complete=False)
    write(url, range(140, 150), "resume")
    masks = MaskStore(url)
    assert (len(masks), masks.complete) == (150, True)
    assert masks.indices.tolist() == list(range(150))
    for row in range(0, 150, 7):
        assert_equal(masks.frame(row), expected(row))
    assert [o.id for o in masks.objects()] == [1, 2]


def test_plain_zarr_reads_a_remote_store(memory):
    import zarr

    write(memory, range(70))
    labels = zarr.open_group(memory, mode="r")["labels"]
    assert np.array_equal(labels[66], expected(66).labels)


def test_overwriting_leaves_nothing_of_the_old_store(memory):
    write(memory, range(100))
    write(memory, range(3), "overwrite")
    assert len(MaskStore(memory)) == 3
    left = fsspec.filesystem("memory").find("masks/o.zarr/labels")
    assert [path.rsplit("/", 1)[1] for path in left] == ["c.0.0.0", "zarr.json"]


def test_lock_is_a_lease_that_grows_old(memory):
    now = [1000.0]
    first = RemotePlace(memory, lambda: now[0]).lock()
    with pytest.raises(StoreLockedError, match="process"):
        RemotePlace(memory, lambda: now[0]).lock()
    now[0] += LOCK_STALE_S + 1
    second = RemotePlace(memory, lambda: now[0]).lock()
    with pytest.raises(StoreLockedError):
        first.check()
    first.release()
    now[0] += LOCK_STALE_S / 2
    second.check()
    second.release()
    RemotePlace(memory, lambda: now[0]).lock()


def test_lock_of_a_process_that_is_gone_is_not_in_the_way(memory):
    place = RemotePlace(memory)
    lock = place.lock()
    holder = json.loads(place.read("labels/lock"))
    gone = subprocess.Popen(["true"])
    gone.wait()
    place.replace("labels/lock", json.dumps(holder | {"pid": gone.pid}).encode())
    RemotePlace(memory).lock()
    lock.release()


def test_second_writer_of_a_url_is_refused(memory):
    with writer(memory) as store:
        store.append(result(0))
        with pytest.raises(StoreLockedError):
            writer(memory, "resume")


def test_service_that_is_not_there_is_a_sentence():
    with pytest.raises(StoreError, match=r"maskstream\[remote\]"):
        writer("nonsense://bucket/o.zarr")
