"""Image sequences: which files, in which order, under which numbers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError, UnreadableSourceError
from maskstream.pipeline.sources import ImageSequence, open_source
from tests.support.media import read

SIZE_HW = (48, 64)


def write_images(folder: Path, names: list[str], size_hw=SIZE_HW, level: int = 90) -> None:
    for name in names:
        cv2.imwrite(str(folder / name), np.full((*size_hw, 3), level, np.uint8))


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["f2.png", "f10.png", "f1.png"], "", [1, 2, 10]),
        (["a_0003.jpg", "b_0001.JPG", "c_0002.tiff"], "", [1, 2, 3]),
        (["1.png", "1.bmp", "2.webp"], "", [0, 1, 2]),  # two have the number 1
        (["beach.png", "f1.png"], "", [0, 1]),
        (["take2_x.png", "take1_x.png"], "", [0, 1]),
        (["i_0007.png", "i_0008.png", "o_0001.png"], "i_%04d.png", [7, 8]),
        (["7_left.png", "12_left.png", "7_right.png"], "%d_left.png", [7, 12]),
        (["i_12.png", "i_0012.png"], "i_%04d.png", [12]),
        (["i_1.png", "i_2.png", "j_3.png"], "i_*.png", [1, 2]),
        (["photo7.png", "photo8.png"], "photo7.png", [7]),
    ],
)
def test_images_keep_their_numbers(tmp_path, names, pattern, expected):
    write_images(tmp_path, names)
    (tmp_path / "._f1.png").write_bytes(b"left by macOS")
    info, _, frames = read(open_source(tmp_path / pattern))
    assert [frame.index for frame in frames] == expected
    assert [frame.pts for frame in frames] == [None] * len(expected)
    assert (info.frame_count, info.size_hw) == (len(expected), SIZE_HW)


def test_images_in_natural_order(tmp_path):
    for level, name in enumerate(["a1b", "a2b", "a10b"]):
        write_images(tmp_path, [f"{name}.png"], level=level)
    frames = read(ImageSequence(tmp_path))[2]
    assert [int(frame.rgb().max()) for frame in frames] == [0, 1, 2]


def test_images_with_a_rate_have_times(tmp_path):
    write_images(tmp_path, ["f10.png", "f20.png", "f30.png"])
    info, _, frames = read(ImageSequence(tmp_path, rate=Fraction(24)))
    assert [frame.pts for frame in frames] == [0, 1, 2]
    assert info.time_base == frames[0].time_base == Fraction(1, 24)


@pytest.mark.parametrize(
    ("start", "end", "stride", "expected"),
    [(20, None, 1, [20, 30, 40]), (15, 40, 1, [20, 30]), (None, None, 2, [10, 30])],
)
def test_range_of_images_means_their_numbers(tmp_path, start, end, stride, expected):
    write_images(tmp_path, ["f10.png", "f20.png", "f30.png", "f40.png"])
    source = open_source(tmp_path, start=start, end=end, stride=stride)
    info, _, frames = read(source)
    assert [frame.index for frame in frames] == expected
    assert info.frame_count == len(expected)


def test_time_range_needs_timestamps(tmp_path):
    write_images(tmp_path, ["f1.png"])
    with pytest.raises(ConfigError, match="has no timestamps"):
        read(open_source(tmp_path, start="1s"))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((4, 6), 77, np.uint8), 77),
        (np.full((4, 6, 3), 77 * 257, np.uint16), 77),
        (np.full((4, 6, 4), 77, np.uint8), 77),
    ],
)
def test_images_of_any_depth_become_rgb(tmp_path, pixels, expected):
    cv2.imwrite(str(tmp_path / "f1.png"), pixels)
    [frame] = read(ImageSequence(tmp_path))[2]
    np.testing.assert_array_equal(frame.rgb(), np.full((4, 6, 3), expected))


def test_images_of_two_sizes_are_refused_by_name(tmp_path):
    write_images(tmp_path, ["f1.png"])
    write_images(tmp_path, ["f2.png"], size_hw=(10, 10))
    with pytest.raises(UnreadableSourceError, match=r"f2.png is \(10, 10\).*f1.png is \(48, 64\)"):
        read(ImageSequence(tmp_path))


def test_unreadable_image_is_counted_and_skipped(tmp_path):
    write_images(tmp_path, ["f1.png", "f3.png"])
    (tmp_path / "f2.png").write_bytes(b"no image")
    _, report, frames = read(ImageSequence(tmp_path))
    assert [frame.index for frame in frames] == [1, 3]
    assert (report.frames, report.corrupt_packets) == (2, 1)
    assert report.messages == ["f2.png cannot be decoded as an image"]
