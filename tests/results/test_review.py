"""What a person should look at: which frames are named and why, how they rank, where they are kept.

`pipeline/lab/evaluation/review_figures.py` measures on real pixels whether the frames
that are named are worse.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import StoreCorruptError
from maskstream.pipeline.results.review import (
    MAX_REVIEW_ITEMS,
    Reason,
    Reviewer,
    ReviewItem,
    review,
    review_of,
)
from maskstream.pipeline.runs.outputs import ResumingSink
from maskstream.pipeline.store import FrameObjects, MaskStore, check_store, repair_store
from maskstream.pipeline.types import ObjectResult
from maskstream.trackers.state import TrackState
from tests.support.media import moving_shapes, write_video
from tests.support.stores import FRAME, abandon, files, let_go, result, write, writer

SURE = 0.85


def thing(object_id=1, *, x=50.0, side=20.0, score=SURE, state=TrackState.TRACKED, area=None):
    """A square object whose center is at (x, 50)."""
    box = (x - side / 2, 50 - side / 2, x + side / 2, 50 + side / 2)
    hidden = state in (TrackState.OCCLUDED, TrackState.LOST)
    pixels = 0 if hidden else int(side * side)
    return ObjectResult(object_id, box, score, state, pixels if area is None else area)


def film(*rows):
    """Frames 100, 101, …: each a list of objects."""
    return [FrameObjects(100 + i, 40 * i, False, tuple(row)) for i, row in enumerate(rows)]


def calm(count, **options):
    """Frames on which an object stands still."""
    return [[thing(**options)] for _ in range(count)]


HIDDEN = [[thing(state=TrackState.OCCLUDED)]]
BACK = [[thing(state=TrackState.REENTERED)]]


@pytest.mark.parametrize(
    ("rows", "reason", "worst", "first", "last"),
    [
        (calm(9) + calm(3, score=0.3) + calm(9), Reason.LOW, 109, 109, 111),
        (calm(9, score=0.99) + calm(1, score=0.65), Reason.DROP, 109, 109, 109),
        (calm(9) + HIDDEN * 20, Reason.OUT_OF_VIEW, 109, 109, 128),
        (calm(9) + calm(1, area=0) + calm(1), Reason.EMPTY, 109, 109, 110),
        (calm(9) + HIDDEN * 9 + BACK + calm(9), Reason.FOUND, 118, 109, 118),
        (calm(9) + calm(9, side=40.0), Reason.AREA, 109, 109, 109),
        (calm(9) + calm(9, x=80.0), Reason.MOVED, 109, 109, 110),
        (calm(9) + HIDDEN + BACK + calm(2) + HIDDEN + BACK, Reason.FLICKER, 114, 109, 114),
        (calm(4) + HIDDEN * 9 + [[]], Reason.SHORT, 104, 104, 112),
    ],
)
def test_trouble_is_named_once_with_its_span_and_worst_frame(rows, reason, worst, first, last):
    (item,) = review(film(*rows))
    assert (item.object, item.reason, item.frame) == (1, reason, worst)
    assert (item.first, item.last, item.pts) == (first, last, 40 * (worst - 100))


@pytest.mark.parametrize(
    "rows",
    [
        calm(50),
        [[thing(x=50 + 9 * i)] for i in range(50)],  # fast, but steady
        [[thing(side=20 * 1.1**i)] for i in range(30)],  # comes nearer
        [[thing(score=1.0)]] + calm(20, score=0.8),  # a person's mask, then the decoder's
        calm(4),  # the film ends, not the object
        calm(4) + [[]],  # removed by a person, or at a cut
        [[], [], []],
    ],
)
def test_nothing_stands_out(rows):
    assert review(film(*rows)) == []


def test_swapped_boxes_name_both_objects():
    apart = [[thing(1, x=30), thing(2, x=90), thing(3, x=150)]] * 5
    swapped = [[thing(1, x=90), thing(2, x=30), thing(3, x=150)]] * 5
    items = review(film(*apart, *swapped))
    assert {(d.object, d.frame, d.detail) for d in items if d.reason == Reason.SWAP} == {
        (1, 105, "with object 2"),
        (2, 105, "with object 1"),
    }
    assert {d.object for d in items} == {1, 2}


def test_trouble_ends_after_a_few_calm_frames():
    low = calm(1, score=0.3)
    assert len(review(film(*low, *calm(4), *low))) == 1
    assert len(review(film(*low, *calm(5), *low))) == 2


def test_one_trouble_tells_what_else_is_wrong():
    (item,) = review(film(*calm(9), *calm(2, score=0.5), *HIDDEN * 9, *BACK))
    assert item.reason == Reason.LOW
    assert {Reason.OUT_OF_VIEW, Reason.FOUND} <= set(item.also)
    assert item.detail == "0.50"


def test_the_worst_comes_first_and_no_more_than_asked_for():
    rows = [
        [thing(number, score=0.65 - 0.07 * number)] for number in (1, 2, 3, 4, 5) for _ in range(3)
    ]
    items = review(film(*rows))
    assert [d.object for d in items] == [5, 4, 3, 2, 1]
    assert review(film(*rows), max_items=2) == items[:2]


def test_what_is_held_does_not_grow_with_the_film():
    reviewer = Reviewer()
    for number in range(3 * MAX_REVIEW_ITEMS):
        for score in (SURE, 0.3, SURE):
            frame = FrameObjects(3 * number, None, False, (thing(1 + number, score=score),))
            reviewer.add(frame)
    assert len(reviewer._alive) == 1
    assert len(reviewer._kept) == MAX_REVIEW_ITEMS
    assert len(reviewer.items()) == MAX_REVIEW_ITEMS


def test_a_doubt_survives_json():
    (item,) = review(film(*calm(9), *HIDDEN * 9, *BACK))
    assert ReviewItem.from_json(json.loads(json.dumps(item.to_json()))) == item


def troubled(index):
    """A frame of a store on which the object is doubtful now and then, by its number alone."""
    still = result(4)
    score = 0.9 if index % 40 < 30 else 0.6 - 0.1 * (index // 40) - 0.01 * (index % 10)
    objects = (replace(still.objects[0], score=score),)
    return replace(result(index), labels=still.labels, objects=objects)


def run(path, indices, mode="create", *, complete=True, killed=False):
    """Write such frames as a run does."""
    store = writer(path, mode)
    sink = ResumingSink(store)
    for index in indices:
        sink.write(FRAME, troubled(index))
    if killed:
        let_go(store)
    else:
        sink.close(complete=complete)


@pytest.mark.parametrize("frames", [10, 64, 70, 150])
def test_frames_come_back_without_pixels(tmp_path, frames):
    abandon(tmp_path / "o.zarr", range(frames))
    masks = MaskStore(tmp_path / "o.zarr")
    rows = [(r.index, r.pts, r.keyframe, r.objects) for r in masks]
    assert [(f.index, f.pts, f.keyframe, f.objects) for f in masks.frame_objects()] == rows


def test_frames_without_objects_come_back(tmp_path):
    with writer(tmp_path / "o.zarr") as store:
        for index, ids in enumerate([(), (1, 2), (), (), (2,), ()]):
            store.append(result(index, ids=ids))
    found = [[o.id for o in f.objects] for f in MaskStore(tmp_path / "o.zarr").frame_objects()]
    assert found == [[], [1, 2], [], [], [2], []]


def test_a_run_leaves_the_list_in_the_store(tmp_path):
    run(tmp_path / "o.zarr", range(100))
    masks = MaskStore(tmp_path / "o.zarr")
    assert [(d["first"], d["frame"], d["last"]) for d in masks.review] == [
        (70, 79, 79),
        (30, 39, 39),
    ]
    assert review_of(masks) == review(masks.frame_objects())
    assert check_store(tmp_path / "o.zarr").problems == []


@pytest.mark.parametrize("stop", [3, 35, 64, 100, 128])
@pytest.mark.parametrize("killed", [False, True])
def test_a_resumed_run_leaves_the_same_list(tmp_path, stop, killed):
    run(tmp_path / "whole.zarr", range(150))
    run(tmp_path / "o.zarr", range(stop), complete=False, killed=killed)
    assert review_of(MaskStore(tmp_path / "o.zarr")) == review([troubled(i) for i in range(stop)])
    run(tmp_path / "o.zarr", range(150), "resume")
    assert files(tmp_path / "o.zarr") == files(tmp_path / "whole.zarr")


def test_a_store_without_a_list_or_with_more_frames_is_reviewed_anew(tmp_path):
    path = tmp_path / "o.zarr"
    run(path, range(64), complete=False)
    assert MaskStore(path).review is not None
    abandon(path, range(64, 70), "resume")
    assert MaskStore(path).review is None
    write(tmp_path / "old.zarr", range(10))
    root = tmp_path / "old.zarr" / "zarr.json"
    values = json.loads(root.read_text())
    del values["attributes"]["review"]
    root.write_text(json.dumps(values))
    assert MaskStore(tmp_path / "old.zarr").review is None
    assert review_of(MaskStore(tmp_path / "old.zarr")) != []  # of score 0.5


def test_a_damaged_list_is_a_sentence_and_repair_removes_it(tmp_path):
    path = tmp_path / "o.zarr"
    run(path, range(50))
    root = path / "zarr.json"
    before = review_of(MaskStore(path))
    values = json.loads(root.read_text())
    values["attributes"]["review"] = [{"reason": "bad luck"}]
    root.write_text(json.dumps(values))
    with pytest.raises(StoreCorruptError, match="--repair"):
        review_of(MaskStore(path))
    assert repair_store(path).problems == []
    assert review_of(MaskStore(path)) == before


def test_command_lists_the_worst_and_draws_them(cli, tmp_path):
    store, video, sheet = (tmp_path / name for name in ("o.zarr", "clip.mp4", "sheet.png"))
    run(store, range(100))
    frames, _ = moving_shapes(100, (32, 48), shapes=1, seed=1)
    write_video(video, frames)
    code, out, err = cli("review", store, "--json", "--top", 1)
    assert (code, err) == (0, "")
    (worst,) = json.loads(out)
    assert worst["severity"] == pytest.approx(1.5 - 2 * 0.41)
    assert (worst["frame"], worst["first"], worst["last"]) == (79, 70, 79)
    code, out, err = cli("review", store, "--contact-sheet", sheet, "--source", video)
    assert code == 0, err
    assert "low confidence" in out
    assert cv2.imread(str(sheet)) is not None
    code, _, err = cli("review", store, "--contact-sheet", sheet)  # clip.mp4 of the run is nowhere
    assert (code, err.count("\n")) == (1, 1)


def test_command_says_when_nothing_stands_out(cli, tmp_path):
    with writer(tmp_path / "o.zarr") as store:
        for index in range(5):
            store.append(replace(result(index), objects=(), labels=np.zeros((6, 9), np.uint16)))
    assert cli("review", tmp_path / "o.zarr")[:2] == (0, "nothing to review\n")
    assert cli("review", tmp_path / "o.zarr", "--json")[:2] == (0, "[]\n")
