"""Edges of mattes: each option does what its name says, to the pixel, and nothing else."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.edges import (
    Edges,
    alpha_of,
    clean_mask,
    majority_vote,
    soft_radius_px,
)
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.frames import ExportFrame, ExportObject
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.names import NameTemplate
from maskstream.pipeline.exports.output import Output
from maskstream.pipeline.exports.shots import ALL, Shots
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState

SIZE = (40, 60)
INFO = SourceInfo("clip.mp4", SIZE, Fraction(1, 25), Fraction(25))


def square(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def nothing() -> np.ndarray:
    raise AssertionError("the picture is needed for soft edges only")


SQUARE = square(10, 20, 30, 40)


def test_masks_are_left_alone_by_default():
    assert clean_mask(SQUARE, Edges()) is SQUARE
    assert np.array_equal(alpha_of(SQUARE, Edges(), nothing), SQUARE)
    assert alpha_of(SQUARE, Edges(), nothing).dtype == np.float32


@pytest.mark.parametrize(
    ("grow", "expected"),
    [
        (1, square(10, 19, 30, 41) | square(9, 20, 31, 40)),
        (-1, square(11, 21, 29, 39)),
        (-9, square(19, 29, 21, 31)),
        (-11, square(0, 0, 0, 0)),
    ],
)
def test_grow_moves_the_edge_by_so_many_pixels(grow, expected):
    grown = alpha_of(SQUARE, Edges(grow_px=grow), nothing) > 0
    if grow > 0:  # corners are round
        expected = expected | square(9, 19, 31, 41)
    assert np.array_equal(grown, expected)


def test_growing_is_round_and_shrinking_keeps_to_the_border():
    dot = square(20, 30, 21, 31)
    grown = alpha_of(dot, Edges(grow_px=5), nothing) > 0
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    away = np.hypot(rows - 20, columns - 30)
    assert grown[away <= 4.9].all()
    assert not grown[away >= 5.6].any()
    at_border = square(0, 0, 20, 60)
    shrunk = alpha_of(at_border, Edges(grow_px=-3), nothing) > 0
    assert np.array_equal(shrunk, square(0, 0, 17, 60))
    assert alpha_of(np.ones(SIZE, np.bool_), Edges(grow_px=-3), nothing).all()


def test_feather_is_a_ramp_of_so_many_pixels_to_both_sides():
    alpha = alpha_of(square(0, 0, 40, 30), Edges(feather_px=4), nothing)
    row = alpha[20]
    assert np.all(row[:26] == 1)
    assert np.all(row[34:] == 0)
    assert (np.diff(row[25:35]) < 0).all()
    assert row[29] + row[30] == pytest.approx(1, abs=1e-3)
    assert np.allclose(alpha, row)  # the border is no edge


def test_holes_and_islands_go_by_size():
    mask = square(5, 5, 35, 40)
    mask[10:12, 10:12] = False  # 4 pixels
    mask[20:23, 20:23] = False  # 9
    mask[5:7, 30:32] = False  # open to the outside
    mask[0:2, 50:52] = True  # 4
    mask[30:33, 50:53] = True  # 9
    for size, holes, islands in ((3, 2, 3), (4, 1, 2), (9, 0, 1)):
        filled = clean_mask(mask, Edges(fill_holes_px=size))
        found = cv2.connectedComponents((~filled).astype(np.uint8), connectivity=4)[0] - 2
        assert found == holes
        assert not filled[5:7, 30:32].any()
        kept = clean_mask(mask, Edges(remove_islands_px=size))
        assert cv2.connectedComponents(kept.astype(np.uint8), connectivity=8)[0] - 1 == islands
    at_border = np.ones(SIZE, np.bool_)
    at_border[0, 0] = False
    assert not clean_mask(at_border, Edges(fill_holes_px=9))[0, 0]


def test_vote_is_by_majority_and_at_a_tie_ones_own():
    on, off = np.ones(SIZE, np.bool_), np.zeros(SIZE, np.bool_)
    assert majority_vote([on, off, on], off).all()
    assert not majority_vote([on, off, off], on).any()
    assert majority_vote([on, off], on).all()
    assert not majority_vote([on, off], off).any()


@pytest.mark.parametrize("off_px", [-2, 2])
def test_soft_edge_is_drawn_to_the_images(off_px):
    """The mask is two pixels wrong; the picture has a clear edge at column 90."""
    size = (480, 200)  # a soft edge reaches 2 pixels and more for it
    image = np.full(size, 60, np.uint8)
    image[:, :90] = 200
    mask = np.zeros(size, np.bool_)
    mask[:, : 90 + off_px] = True
    alpha = alpha_of(mask, Edges(soft=True), lambda: image)
    truth = np.zeros(size)
    truth[:, :90] = 1
    assert np.abs(alpha - truth).sum() < 0.3 * np.abs(mask - truth).sum()
    reach = soft_radius_px(size)
    assert (alpha[:, : 90 + off_px - reach] == 1).all()
    assert (alpha[:, 90 + off_px + reach :] == 0).all()
    assert ((alpha >= 0) & (alpha <= 1)).all()


def test_soft_edge_of_a_flat_image_stays_where_it_is():
    image = np.full(SIZE, 90, np.uint8)
    alpha = alpha_of(square(0, 0, 40, 30), Edges(soft=True), lambda: image)
    assert np.array_equal(alpha > 0.5, square(0, 0, 40, 30))


def frame_of(index: int, labels: np.ndarray) -> FrameResult:
    objects = tuple(
        ObjectResult(
            int(i), (0.0, 0.0, 1.0, 1.0), 0.9, TrackState.TRACKED, int((labels == i).sum())
        )
        for i in np.unique(labels)
        if i
    )
    return FrameResult(index, index, INFO.time_base, False, labels.astype(np.uint16), objects)


def test_smoothing_takes_out_what_is_there_for_one_frame_and_holds_no_more_frames(tmp_path):
    count = 40
    numbers = np.arange(count)
    edges = Edges(smooth_frames=5)
    objects = (ExportObject(1),)
    job = ExportJob(
        Output(tmp_path, tmp_path),
        INFO,
        objects,
        numbers,
        NameTemplate("{frame}", "c"),
        edges=edges,
    )
    shots, made = Shots(job, source_video=None), []
    for row in range(count):
        labels = square(10, 10 + row // 2, 30, 20 + row // 2).astype(np.uint16)
        if row == 7:
            labels[:] = 1  # the whole picture, for one frame
        if row == 21:
            labels[:] = 0
        made += list(shots.push(ExportFrame(row, row, frame_of(row, labels), objects)))
        assert len(shots._held) <= 5
    assert [shot.frame.number for shot in made] == list(range(count))
    for row, shot in enumerate(made):
        area = np.count_nonzero(shot.mattes[ALL])
        assert abs(area - 200) <= 40, row


@pytest.fixture
def store(tmp_path):
    written = MaskStoreWriter(tmp_path / "o.zarr", info=INFO, attributes={})
    for index in range(3):
        labels = SQUARE.astype(np.uint16)
        labels[20, 30], labels[2, 2] = 0, 1
        labels[:, 50:] = 2
        written.append(frame_of(index, labels))
    written.close(complete=True)
    return MaskStore(tmp_path / "o.zarr")


@pytest.mark.parametrize("bits", [8, 16])
def test_png_mattes_take_edges_without_the_video(store, tmp_path, bits):
    name = "png-matte" if bits == 8 else "png-matte-16"
    place = tmp_path / "m"
    edges = Edges(fill_holes_px=1, remove_islands_px=1, feather_px=2, smooth_frames=3)
    export_store(store, place, ExportChoice(name, objects="1", edges=edges))
    matte = cv2.imread(str(place / "clip_1_000001.png"), cv2.IMREAD_UNCHANGED)
    truth = alpha_of(SQUARE, Edges(feather_px=2), nothing)
    assert np.abs(matte / (2**bits - 1) - truth).max() <= 0.5 / (2**bits - 1) + 1e-6
    assert len(np.unique(matte)) > 5


def test_other_edges_are_another_export(store, tmp_path, monkeypatch, cli):
    """A folder that was broken off is gone on with by the same options only."""
    from maskstream.pipeline.exports.label_images import Mattes

    place, write = tmp_path / "m", Mattes.write
    command = ["export", store.path, "--format", "png-matte", "-o", place, "--grow", "2"]

    def stop(self, frame):
        if frame.row == 2:
            raise KeyboardInterrupt
        write(self, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Mattes, "write", stop)
        assert cli(*command)[0] == 130
    code, _, err = cli(*command[:-1], "3")
    assert code == 1
    assert "was interrupted" in err
    code, out, err = cli(*command)
    assert code == 0, err
    assert "4 files existed already" in out.replace("\n", " ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"smooth_frames": 2},
        {"smooth_frames": 0},
        {"feather_px": -0.1},
        {"fill_holes_px": -1},
        {"remove_islands_px": -1},
        {"grow_px": float("inf")},
        {"feather_px": float("nan")},
    ],
)
def test_impossible_edges_are_refused(wrong):
    with pytest.raises(ConfigError):
        Edges(**wrong)


def test_soft_edges_are_the_same_each_time():
    """OpenCV's sums of floats depend on where in memory the numbers lie."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (301, 403), dtype=np.uint8)
    mask = cv2.blur(rng.random((301, 403)), (31, 31)) > 0.5
    held, first = [], alpha_of(mask, Edges(soft=True, feather_px=1), lambda: image)
    for size in range(12):
        held.append(np.zeros(1000 * size + size, np.uint8))
        again = alpha_of(mask, Edges(soft=True, feather_px=1), lambda: image.copy())
        assert np.array_equal(again, first)


def test_objects_may_have_edges_of_their_own(tmp_path):
    objects = (ExportObject(1), ExportObject(2))
    own = {2: Edges(grow_px=3)}
    labels = square(4, 4, 12, 12).astype(np.uint16)
    labels[24:32, 24:32] = 2
    frame = ExportFrame(0, 0, frame_of(0, labels), objects)
    for each in (False, True):
        job = ExportJob(
            Output(tmp_path, tmp_path),
            INFO,
            objects,
            np.arange(1),
            NameTemplate("{frame}", "c"),
            object_edges=own,
        )
        (shot,) = Shots(job, source_video=None, each=each).push(frame)
        matte = np.maximum(shot.mattes[1], shot.mattes[2]) if each else shot.matte
        assert matte[2, 8] == 0
        assert matte[8, 8] == 1
        assert matte[22, 28] == 1
        assert matte[18, 28] == 0
