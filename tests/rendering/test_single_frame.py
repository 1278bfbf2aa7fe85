"""Objects of single frames as pictures: what is painted, and where it is written."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from maskstream.pipeline.engine.stills import single_frame_result
from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.rendering.single_frame import ImageOutput
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.proposals import Proposal
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.sources.mask_images import read_label_map
from maskstream.pipeline.types import Frame, SourceInfo

GEOMETRY = InputGeometry.fit((96, 128), 128, 32)
FRAME = Frame(7, 30, Fraction(1, 10), (96, 128), ArrayView(np.zeros((96, 128, 3), np.uint8)))


def square(top: int, left: int, side: int, iou: float = 0.9) -> Proposal:
    """A square in frame pixels, which are four to a cell."""
    logits = np.full(GEOMETRY.grid_hw, -8, np.float32)
    logits[top // 4 : (top + side) // 4, left // 4 : (left + side) // 4] = 8
    return Proposal(logits, iou, 1.0)


def info(frames: int | None) -> SourceInfo:
    return SourceInfo("clip", (96, 128), Fraction(1, 10), frame_count=frames)


def test_a_part_lies_on_its_whole_and_objects_are_numbered_by_size():
    whole, part, beside = square(16, 16, 64, 0.6), square(32, 32, 24), square(8, 96, 16, 0.7)
    result = single_frame_result(FRAME, [part, beside, whole], GEOMETRY)
    assert (result.index, result.pts_s) == (7, 3.0)
    assert result.labels.dtype == np.uint16
    assert [result.labels[at] for at in ((20, 20), (44, 44), (16, 104), (90, 120))] == [1, 2, 3, 0]
    assert [o.id for o in result.objects] == [1, 2, 3]
    assert [o.score for o in result.objects] == pytest.approx([0.6, 0.9, 0.7])
    assert [o.area for o in result.objects] == np.bincount(result.labels.ravel())[1:].tolist()
    assert result.objects[1].box_xyxy == (32, 32, 56, 56)


def test_what_its_parts_hide_is_left_out():
    whole = square(32, 32, 32)
    parts = [square(y, x, 16) for y in (32, 48) for x in (32, 48)]
    result = single_frame_result(FRAME, [whole, *parts], GEOMETRY)
    assert set(np.unique(result.labels)) == {0} | {o.id for o in result.objects}
    alone = single_frame_result(FRAME, [whole, square(32, 32, 32, 0.5)], GEOMETRY)
    assert [o.id for o in alone.objects] == [1]


def test_nothing_found_is_an_empty_map():
    result = single_frame_result(FRAME, [], GEOMETRY)
    assert not result.labels.any()
    assert result.objects == ()


def test_images_come_back_as_they_were(tmp_path):
    labels = np.arange(96 * 128, dtype=np.uint16).reshape(96, 128)
    ImageOutput(tmp_path / "new" / "a.png").write(7, labels)
    assert np.array_equal(read_label_map(tmp_path / "new" / "a.png"), labels)
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0] = 200
    ImageOutput(tmp_path / "frames").write(12, rgb)
    bgr = cv2.imread(str(tmp_path / "frames" / "000012.png"))
    assert np.array_equal(bgr[..., ::-1], rgb)
    assert [p.name for p in (tmp_path / "frames").iterdir()] == ["000012.png"]


@pytest.mark.parametrize(
    ("name", "frames", "error"),
    [
        ("new.png", 1, None),
        ("new.PNG", 2, ConfigError),
        ("new.png", None, ConfigError),
        ("new", None, None),
        ("empty", 5, None),
        ("masks.mp4", 5, ConfigError),
        ("there.png", 1, StoreExistsError),
        ("filled", 5, StoreExistsError),
        ("filled/0.png/a", 5, None),
    ],
)
def test_places_are_judged_before_any_work(tmp_path, name, frames, error):
    (tmp_path / "empty").mkdir()
    (tmp_path / "filled").mkdir()
    for file in ("there.png", "filled/0.png"):
        (tmp_path / file).write_text("")
    output = ImageOutput(tmp_path / name)
    if error is None:
        output.check(info(frames), overwrite=False)
        return
    with pytest.raises(error):
        output.check(info(frames), overwrite=False)
    if error is StoreExistsError:
        output.check(info(frames), overwrite=True)


def test_what_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        ImageOutput(tmp_path / "file" / "a.png").write(0, np.zeros((2, 2), np.uint16))
