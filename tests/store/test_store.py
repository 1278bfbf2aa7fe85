"""The mask store: what goes in comes out, and a kill at any instant leaves what was committed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskstream.pipeline.errors import (
    StoreCorruptError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
)
from maskstream.pipeline.store import (
    MaskStore,
    MaskStoreWriter,
    append_events,
    check_store,
    runs_of,
)
from maskstream.pipeline.store.covered import parts_of
from maskstream.pipeline.types import CoveredPart
from tests.support.stores import (
    FRAME,
    INFO,
    SIZE,
    assert_equal,
    expected,
    let_go,
    result,
    write,
    writer,
)


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
    with writer(
        tmp_path / "o.zarr", frames_per_commit=4, seconds_per_commit=2.0, monotonic=lambda: now[0]
    ) as store:
        seen = []
        for index in range(10):
            if index == 6:
                now[0] = 2.5
            store.append(result(index))
            seen.append(store.committed_frames)
            assert len(MaskStore(tmp_path / "o.zarr")) == index + 1
    assert seen == [0, 0, 0, 4, 4, 4, 7, 7, 7, 7]


def test_commits_what_is_due_though_no_frame_comes(tmp_path):
    now = [0.0]
    with writer(tmp_path / "o.zarr", seconds_per_commit=2.0, monotonic=lambda: now[0]) as store:
        store.append(result(0))
        seen = []
        for seconds in (0.5, 1.9, 2.1):
            now[0] = seconds
            store.commit_due()
            seen.append(store.committed_frames)
        assert seen == [0, 0, 1]


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
        (
            lambda root: _edit(root, rows={"frames": 50, "objects": 3, "hidden": 0}),
            StoreCorruptError,
        ),
        (lambda root: _edit(root, rows={"frames": "many"}), StoreCorruptError),
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


def test_overlapping_objects_keep_their_whole_masks(tmp_path):
    behind = np.zeros((4, 5), np.bool_)
    behind[1:3, 1:4] = True
    deeper = np.ones((2, 3), np.bool_)
    labels = np.zeros(SIZE, np.uint16)
    labels[1:5, 2:7] = 3
    frame = replace(
        result(0, ids=(1, 2, 3)),
        labels=labels,
        covered=(CoveredPart(1, 1, 2, behind), CoveredPart(2, 2, 3, deeper)),
    )
    with writer(tmp_path / "o.zarr") as store:
        store.append(result(7))
        store.append(frame)
    masks = MaskStore(tmp_path / "o.zarr")
    truth = np.zeros((3, *SIZE), np.bool_)
    truth[0, 2:4, 3:6] = True
    truth[1, 2:4, 3:6] = True
    truth[2] = labels == 3
    for object_id, mask in enumerate(truth, start=1):
        assert np.array_equal(masks.mask(object_id, 1), mask)
    assert masks.frame(0).covered == ()


@settings(max_examples=40, deadline=None)
@given(mask=hnp.arrays(np.bool_, SIZE), second=hnp.arrays(np.bool_, SIZE))
def test_any_hidden_part_survives_as_runs(mask, second):
    parts = [CoveredPart(i, 0, 0, each) for i, each in ((4, mask), (9, second))]
    back = {part.object_id: part for part in parts_of(runs_of(parts, 0, SIZE), SIZE)}
    for object_id, truth in ((4, mask), (9, second)):
        whole = np.zeros(SIZE, np.bool_)
        if object_id in back:
            part = back[object_id]
            rows, columns = part.mask.shape
            whole[part.y0 : part.y0 + rows, part.x0 : part.x0 + columns] = part.mask
        assert np.array_equal(whole, truth)
        assert (object_id in back) == truth.any()


def test_hidden_part_outside_the_image_is_refused(tmp_path):
    part = CoveredPart(1, 5, 0, np.ones((2, 2), np.bool_))
    with pytest.raises(StoreError, match="outside"), writer(tmp_path / "o.zarr") as store:
        store.append(replace(result(0), covered=(part,)))


def test_events_are_a_log_that_only_grows(tmp_path):
    path = tmp_path / "o.zarr"
    log = [{"frame": 0, "type": "box", "object": 1}, {"frame": 0, "type": "remove", "object": 1}]
    abandoned = writer(path)
    abandoned.add_events(log)
    abandoned.append(result(0))
    let_go(abandoned)
    assert MaskStore(path).events == log
    with writer(path, "resume") as resumed:
        resumed.add_events([*log, log[0]])
    assert MaskStore(path).events == [*log, log[0]]
    with pytest.raises(StoreError, match="other prompts"), writer(path, "resume") as resumed:
        resumed.add_events(log[1:])
    assert MaskStore(path).events == [*log, log[0]]


CUP, MUG = ({"frame": 0, "type": "rename", "object": 1, "name": n} for n in ("cup", "mug"))


@pytest.mark.parametrize("complete", [True, False])
def test_names_are_added_to_a_store_that_nobody_writes(tmp_path, complete):
    path = tmp_path / "o.zarr"
    review = [{"frame": 3, "object": 1, "reason": "lost"}]
    begun = writer(path)
    begun.add_events([CUP])
    for index in range(70):
        begun.append(expected(index))
    if complete:
        begun.close(complete=True, review=review)
    else:
        with pytest.raises(StoreLockedError):
            append_events(path, [MUG])
        let_go(begun)
    append_events(path, [MUG])
    masks = MaskStore(path)
    assert masks.events == [CUP, MUG]
    assert masks.names == {1: "mug"}
    assert [o.name for o in masks.objects()] == ["mug", ""]
    assert (len(masks), masks.complete) == (70, complete)
    assert masks.review == (review if complete else None)
    assert check_store(path).problems == []
    with pytest.raises(StoreError, match="no mask store"):
        append_events(tmp_path / "other.zarr", [MUG])


def test_reader_follows_a_writer_that_finishes_shards(tmp_path):
    """A reader opened early goes on reading while its journal becomes a shard and a tail again."""
    path = tmp_path / "o.zarr"
    store = writer(path)
    for index in range(60):
        store.append(expected(index))
    early = MaskStore(path)
    assert_equal(early.frame(59), expected(59))
    for index in range(60, 70):
        store.append(expected(index))
    with MaskStore(path) as later:
        assert len(later) == 70
        assert_equal(early.frame(3), expected(3))
        store.close(complete=False)
        assert_equal(later.frame(69), expected(69))
    closed = MaskStore(path)
    assert_equal(closed.frame(69), expected(69))
    with writer(path, "resume") as resumed:
        assert_equal(closed.frame(68), expected(68))
        assert_equal(closed.frame(1), expected(1))
        assert len(resumed.attributes) == 1


def test_old_store_says_what_to_do(tmp_path):
    path = tmp_path / "o.zarr"
    write(path, range(2))
    _edit(path / "zarr.json", version=1)
    with pytest.raises(StoreError, match=r"format version 1, .* --overwrite"):
        MaskStore(path)
    with pytest.raises(StoreError, match="format version 1"):
        writer(path, "resume")
    write(path, range(3), "overwrite")
    assert len(MaskStore(path)) == 3
