"""The mask store: what goes in comes out, and a kill at any instant leaves what was committed."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import StoreCorruptError, StoreError, StoreExistsError
from pipeline.sources import ArrayView
from pipeline.store import MaskStore, MaskStoreWriter
from pipeline.types import Frame, FrameResult, ObjectResult, SourceInfo
from trackers.state import TrackState

SIZE = (6, 9)
INFO = SourceInfo("clip.mp4", SIZE, Fraction(1, 1000), Fraction(25), rotation_deg=90)
FRAME = Frame(0, 0, INFO.time_base, SIZE, ArrayView(np.zeros((*SIZE, 3), np.uint8)))


def result(index: int, *, pts: int | None = 0, ids: tuple[int, ...] = (1,)) -> FrameResult:
    labels = np.zeros(SIZE, np.uint16)
    for object_id in ids:
        labels[object_id % SIZE[0], : 1 + index % SIZE[1]] = object_id
    objects = tuple(
        ObjectResult(
            i, (0.0, float(i), 1.0, 5.0), 0.5, TrackState.TRACKED, int((labels == i).sum())
        )
        for i in ids
    )
    given_pts = None if pts is None else 40 * index
    return FrameResult(index, given_pts, INFO.time_base, index % 5 == 0, labels, objects)


def writer(path: Path, mode="create", **options) -> MaskStoreWriter:
    return MaskStoreWriter(path, info=INFO, attributes={"model": "lite"}, mode=mode, **options)


def write(path: Path, indices, mode="create", *, complete=True) -> None:
    store = writer(path, mode)
    for index in indices:
        store.write(FRAME, result(index))
    store.close(complete=complete)


def assert_equal(a: FrameResult, b: FrameResult) -> None:
    assert np.array_equal(a.labels, b.labels)
    assert replace(a, labels=b.labels) == b


def test_everything_comes_back(tmp_path):
    given_results = [result(i, ids=(1, 700, 65535)) for i in (0, 1, 5)] + [
        result(9, pts=None, ids=())
    ]
    with writer(tmp_path / "o.zarr") as store:
        for r in given_results:
            store.write(FRAME, r)
    masks = MaskStore(tmp_path / "o.zarr")
    assert masks.source == INFO
    assert masks.attributes == {"model": "lite"}
    assert masks.complete
    assert masks.indices.tolist() == [0, 1, 5, 9]
    for a, b in zip(masks, given_results, strict=True):
        assert_equal(a, b)
    assert masks.mask(700, 2).sum() == (given_results[2].labels == 700).sum()
    summary = {o.id: o for o in masks.objects()}
    assert summary[700].first_index == 0
    assert summary[700].last_index == 5
    assert summary[700].frames_seen == 3
    assert summary[700].mean_score == pytest.approx(0.5)


@settings(max_examples=15, deadline=None)
@given(labels=hnp.arrays(np.uint16, (3, *SIZE), elements=st.integers(0, 65535)))
def test_any_label_map_survives(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("store") / "o.zarr"
    with writer(path) as store:
        for i, each in enumerate(labels):
            store.write(FRAME, replace(result(i), labels=each))
    read = np.stack([r.labels for r in MaskStore(path)])
    assert np.array_equal(read, labels)


def test_commits_every_so_many_frames_or_seconds(tmp_path):
    now = [0.0]
    store = writer(
        tmp_path / "o.zarr", frames_per_commit=4, seconds_per_commit=2.0, monotonic=lambda: now[0]
    )
    seen = []
    for index in range(10):
        if index == 6:
            now[0] = 2.5
        store.write(FRAME, result(index))
        seen.append(len(MaskStore(tmp_path / "o.zarr")))
    assert seen == [0, 0, 0, 4, 4, 4, 7, 7, 7, 7]


def test_abandoned_store_opens_and_resumes_to_the_same_as_an_uninterrupted_one(tmp_path):
    broken = writer(tmp_path / "broken.zarr", frames_per_commit=3)
    for index in range(8):
        broken.write(FRAME, result(index))
    del broken  # as a kill would: nothing is closed
    half = MaskStore(tmp_path / "broken.zarr")
    assert (len(half), half.complete) == (6, False)
    resumed = writer(tmp_path / "broken.zarr", "resume")
    assert (resumed.committed_frames, resumed.last_committed_index) == (6, 5)
    for index in range(6, 12):
        resumed.write(FRAME, result(index))
    resumed.close(complete=True)
    write(tmp_path / "whole.zarr", range(12))
    for a, b in zip(
        MaskStore(tmp_path / "broken.zarr"), MaskStore(tmp_path / "whole.zarr"), strict=True
    ):
        assert_equal(a, b)


def test_error_inside_the_with_block_leaves_an_incomplete_store(tmp_path):
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "o.zarr") as store:
        store.write(FRAME, result(0))
        raise ZeroDivisionError
    masks = MaskStore(tmp_path / "o.zarr")
    assert (len(masks), masks.complete) == (1, False)


def test_create_refuses_what_exists_and_overwrite_replaces_stores_only(tmp_path):
    path = tmp_path / "o.zarr"
    write(path, range(4))
    with pytest.raises(StoreExistsError, match=r"--overwrite .* --resume"):
        writer(path)
    write(path, range(2), "overwrite")
    assert len(MaskStore(path)) == 2
    precious = tmp_path / "holiday"
    precious.mkdir()
    (precious / "photo.jpg").write_bytes(b"x")
    for mode in ("create", "overwrite"):
        with pytest.raises(StoreExistsError, match="not a mask store"):
            writer(precious, mode)
    assert (precious / "photo.jpg").exists()


def test_resume_refuses_another_source_and_creates_what_is_missing(tmp_path):
    write(tmp_path / "o.zarr", range(2), "resume", complete=False)
    other = replace(INFO, size_hw=(7, 9))
    with pytest.raises(StoreError, match="another source"):
        MaskStoreWriter(tmp_path / "o.zarr", info=other, attributes={}, mode="resume")


@pytest.mark.parametrize("place", ["/proc/o.zarr", "file/o.zarr"])
def test_place_that_cannot_be_written_is_a_sentence(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        writer(Path(place) if place.startswith("/") else tmp_path / place)


@pytest.mark.parametrize(
    ("labels", "says"),
    [(np.zeros((2, 2), np.uint16), r"\(2, 2\)"), (np.zeros(SIZE, np.uint8), "uint8")],
)
def test_result_that_does_not_fit_is_refused(tmp_path, labels, says):
    with (
        pytest.raises(StoreError, match=says),
        writer(tmp_path / "o.zarr") as store,
    ):
        store.write(FRAME, replace(result(0), labels=labels))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda root: root.unlink(), StoreError),
        (lambda root: root.write_text("{"), StoreCorruptError),
        (lambda root: _edit(root, format="other"), StoreError),
        (lambda root: _edit(root, version=99), StoreError),
        (lambda root: _edit(root, committed_frames=50), StoreCorruptError),
        (lambda root: _edit(root, committed_frames="many"), StoreCorruptError),
    ],
)
def test_damaged_store_is_a_typed_error(tmp_path, damage, error):
    write(tmp_path / "o.zarr", range(3))
    damage(tmp_path / "o.zarr" / "zarr.json")
    with pytest.raises(error):
        MaskStore(tmp_path / "o.zarr")


def _edit(root: Path, **values) -> None:
    content = json.loads(root.read_text())
    content["attributes"] |= values
    root.write_text(json.dumps(content))


def test_plain_zarr_reads_it(tmp_path):
    import zarr

    write(tmp_path / "o.zarr", range(3))
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")
    assert group["labels"].shape == (3, *SIZE)
    assert group["frames/pts"][:].tolist() == [0, 40, 80]
