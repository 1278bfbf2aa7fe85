"""`fsck`: finds what does not fit, restores what can be derived, cuts before what cannot."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from maskstream.pipeline.errors import StoreError, StoreLockedError
from maskstream.pipeline.store import MaskStore, check_store, repair_store
from maskstream.pipeline.types import CoveredPart
from tests.support.stores import abandon, assert_equal, expected, files, result, write, writer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of 150 frames: two full shards and a part of a third."""
    path = tmp_path_factory.mktemp("whole") / "o.zarr"
    write(path, range(150))
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "o.zarr"))


def test_whole_stores_have_no_problems(whole, tmp_path):
    assert check_store(whole).problems == []
    assert check_store(whole).frames == 150
    abandon(tmp_path / "killed.zarr", range(70))
    assert check_store(tmp_path / "killed.zarr") == replace(check_store(whole), frames=70)


def test_repairing_a_whole_store_changes_nothing(copy, whole, tmp_path):
    assert repair_store(copy).problems == []
    assert files(copy) == files(whole)
    abandon(tmp_path / "killed.zarr", range(70))
    before = files(tmp_path / "killed.zarr")
    assert repair_store(tmp_path / "killed.zarr").frames == 70
    assert files(tmp_path / "killed.zarr") == before


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


def other_rows(path: Path) -> None:
    zarr.open_array(path, mode="r+")[5] = 77


def edit_counts(root: Path) -> None:
    document = json.loads(root.read_text())
    document["attributes"]["rows"]["objects"] += 1
    root.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: flip(p / "labels/c.1.0.0", -20), "labels/c.1.0.0: its index"),
        (lambda p: other_rows(p / "frames/pts"), "frames/pts: rows from 0"),
        (lambda p: other_rows(p / "objects/score"), "objects/score: rows from 0"),
        (lambda p: other_rows(p / "hidden/length"), "hidden/length: rows from 0"),
        (lambda p: shutil.rmtree(p / "objects/id"), "objects/id: rows from 0"),
        (lambda p: flip(p / "objects/box_xyxy/c.0.0", 0), "objects/box_xyxy: rows from 0"),
        (lambda p: edit_counts(p / "zarr.json"), "zarr.json counts"),
    ],
)
def test_what_can_be_derived_is_restored(copy, whole, damage, says):
    damage(copy)
    assert any(says in problem for problem in check_store(copy).problems)
    assert repair_store(copy).problems == []
    assert files(copy) == files(whole)


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_damaged_frame_is_named_and_the_store_cut_before_it_resumes(copy, whole, shard):
    flip(copy / f"labels/c.{shard}.0.0", 800)
    found = check_store(copy)
    assert any("damaged or missing" in problem for problem in found.problems)
    assert shard * 64 <= found.frames < shard * 64 + 64
    repaired = repair_store(copy)
    assert repaired == replace(found, problems=[])
    masks = MaskStore(copy)
    assert (len(masks), masks.complete) == (found.frames, False)
    write(copy, range(found.frames, 150), "resume")
    assert files(copy) == files(whole)


def test_lost_shard_is_named(copy, whole):
    (copy / "labels/c.1.0.0").unlink()
    assert check_store(copy).frames == 64
    assert repair_store(copy).frames == 64
    write(copy, range(64, 150), "resume")
    assert files(copy) == files(whole)


def test_repair_that_was_interrupted_is_repaired(copy, whole):
    """Its header counts few frames by then, but every shard is there."""
    document = json.loads((copy / "zarr.json").read_text())
    document["attributes"] |= {"rows": {"frames": 0, "objects": 0, "hidden": 0}, "complete": False}
    (copy / "zarr.json").write_text(json.dumps(document))
    assert repair_store(copy) == replace(check_store(whole), frames=150)
    masks = MaskStore(copy)
    for row in (0, 127, 149):
        assert_equal(masks.frame(row), expected(row))


def wrong(**changes):
    frame = result(1, ids=(1, 2))
    return replace(frame, objects=(replace(frame.objects[0], **changes), frame.objects[1]))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (replace(result(1), index=0), "does not increase"),
        (replace(result(1), objects=()), "labels without an object"),
        (replace(result(1), objects=result(1).objects * 2), "listed twice"),
        (wrong(area=3), "area"),
        (wrong(score=1.5), "score"),
        (wrong(score=float("nan")), "score"),
        (wrong(box_xyxy=(0.0, 0.0, 99.0, 5.0)), "box"),
        (wrong(state=9), "state"),
        (
            replace(result(1), covered=(CoveredPart(1, 1, 0, np.ones((1, 1), np.bool_)),)),
            "covered part",
        ),
        (
            replace(result(1), covered=(CoveredPart(7, 1, 0, np.ones((1, 1), np.bool_)),)),
            "covered part",
        ),
    ],
)
def test_frame_that_contradicts_itself_is_named(tmp_path, frame, says):
    with writer(tmp_path / "o.zarr") as store:
        store.append(result(0))
        store.append(frame)
    (problem, *_) = check_store(tmp_path / "o.zarr").problems
    assert problem.startswith("frame 1: ")
    assert says in problem


def test_store_that_is_written_is_not_repaired(tmp_path):
    with writer(tmp_path / "o.zarr"), pytest.raises(StoreLockedError):
        repair_store(tmp_path / "o.zarr")
    with pytest.raises(StoreError, match="no mask store"):
        check_store(tmp_path)


def test_command(cli, copy):
    code, out, _ = cli("fsck", copy)
    assert code == 0
    assert "150 frames" in out
    flip(copy / "labels/c.1.0.0", 800)
    code, out, err = cli("fsck", copy)
    assert code == 1
    assert "--repair" in err
    code, out, _ = cli("fsck", copy, "--repair", "--json")
    assert code == 0
    assert json.loads(out)["problems"] == []
    assert_equal(MaskStore(copy).frame(3), expected(3))


def test_info_says_how_far_a_killed_writer_got(cli, tmp_path):
    abandon(tmp_path / "o.zarr", range(70))
    code, out, _ = cli("info", tmp_path / "o.zarr")
    assert code == 0
    assert "70, the last is frame 69, not complete" in out
    code, out, _ = cli("info", tmp_path / "o.zarr", "--json")
    said = json.loads(out)
    assert (code, said["frames"], said["last_frame"], said["complete"]) == (0, 70, 69, False)
