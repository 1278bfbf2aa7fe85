"""What all sources share: the choice by target, ranges, errors; and arrays as a source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipeline.errors import (
    ConfigError,
    SourceError,
    SourceNotFoundError,
    UnreadableSourceError,
)
from maskstream.pipeline.sources import ArraySource, FrameRange, Position, VideoFile, open_source
from tests.support.media import damage_packets, moving_shapes, read, write_audio, write_video

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(30, SIZE_HW)[0]


@pytest.fixture(scope="module")
def video(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("video") / "shapes.mp4"
    return write_video(path, shapes, options={"bf": "3", "g": "12"})


# Ranges


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("3.5s", Fraction(7, 2)),
        ("2s", Fraction(2)),
        ("1:05", Fraction(65)),
        ("00:00:03.5", Fraction(7, 2)),
        ("01:00:00", Fraction(3600)),
    ],
)
def test_position_is_parsed(text, value):
    position = Position.parse(text)
    assert position.value == value
    assert type(position.value) is type(value)


@pytest.mark.parametrize("text", ["", "3.5", "-3", "-1s", "abc", "1:2:3:4", "3 s s", "1e3s"])
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ConfigError, match="write a frame number"):
        Position.parse(text)


@pytest.mark.parametrize(
    ("start", "end", "stride", "expected"),
    [
        (None, None, 1, range(30)),
        (10, None, 1, range(10, 30)),
        (None, 10, 1, range(10)),
        ("4", "7", 1, range(4, 7)),
        (29, 1000, 1, [29]),
        ("0.4s", "0.48s", 1, [10, 11]),  # 25 frames a second
        ("0.41s", "00:00:00.6", 1, range(11, 15)),
        ("0.4s", 13, 1, range(10, 13)),
        (3, None, 7, [3, 10, 17, 24]),
        ("0.2s", "0.8s", 4, [5, 9, 13, 17]),
    ],
)
def test_range_is_exact_and_keeps_the_numbers(video, start, end, stride, expected):
    source = open_source(video, start=start, end=end, stride=stride)
    info, report, frames = read(source)
    assert [frame.index for frame in frames] == list(expected)
    assert [frame.pts_s for frame in frames] == pytest.approx([i / 25 for i in expected])
    assert info.frame_count == report.frames == len(expected)


def test_range_shows_the_same_pixels_as_the_whole(video):
    whole = read(VideoFile(video))[2]
    [part] = read(open_source(video, start=17, end=18))[2]
    np.testing.assert_array_equal(part.rgb(), whole[17].rgb())


def test_time_counts_from_the_first_frame(tmp_path, shapes):
    pts_ms = [5000 + 40 * index for index in range(10)]
    path = write_video(tmp_path / "late.mkv", shapes[:10], pts=pts_ms)
    _, _, frames = read(open_source(path, start="0.2s"))
    assert [frame.index for frame in frames] == list(range(5, 10))
    assert frames[0].pts_s == pytest.approx(5.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stride": 0}, "stride must be 1 or more"),
        ({"start": 5, "end": 5}, "must lie after the start"),
        ({"start": "2s", "end": "1s"}, "must lie after the start"),
        ({"start": -1}, "negative"),
        ({"start": "soon"}, "write a frame number"),
        ({"start": 1000}, "no frame from frame 1000 to its end"),
        ({"start": "9s"}, "no frame from 9 s"),
    ],
)
def test_impossible_range_is_refused(video, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read(open_source(video, **arguments))


# Bad input


def cut_mp4(folder: Path) -> Path:
    path = write_video(folder / "cut.mp4", moving_shapes(5, SIZE_HW)[0])
    path.write_bytes(path.read_bytes()[:600])
    return path


def written(name: str, content: bytes):
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def all_damaged(folder: Path) -> Path:
    path = write_video(
        folder / "lost.avi", moving_shapes(3, SIZE_HW)[0], codec="mjpeg", pix_fmt="yuvj420p"
    )
    return damage_packets(path, range(3))


def huge(folder: Path) -> Path:
    return write_video(
        folder / "huge.mkv", [np.zeros((2, 16400, 3), np.uint8)], codec="ffv1", pix_fmt="bgr0"
    )


def no_images(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda folder: folder / "gone.mp4", SourceNotFoundError, "no file or folder .*gone.mp4"),
        (lambda folder: folder / "gone_%03d.png", SourceNotFoundError, "matches gone_%03d.png"),
        (lambda folder: folder / "gone" / "*.png", SourceNotFoundError, "no folder .*gone"),
        (no_images, UnreadableSourceError, "holds no images; images end in"),
        (written("empty.mp4", b""), UnreadableSourceError, "is empty"),
        (written("text.mp4", b"no video\n" * 99), UnreadableSourceError, "cannot be opened"),
        (cut_mp4, UnreadableSourceError, "was cut short"),
        (lambda f: write_audio(f / "a.mp4"), UnreadableSourceError, "no video stream, only audio"),
        (all_damaged, UnreadableSourceError, "no frame that can be decoded .*Invalid data"),
        (huge, UnreadableSourceError, "16400x2 pixels"),
        (written("bad.png", b"no image"), UnreadableSourceError, "None of the 1 images"),
        (written("empty.png", b""), UnreadableSourceError, "None of the 1 images"),
    ],
)
def test_bad_input_says_what_is_wrong(tmp_path, make, error, sentence):
    with pytest.raises(error, match=sentence):
        read(open_source(make(tmp_path)))


def test_tags_that_are_not_utf8_do_no_harm(tmp_path, shapes):
    path = write_video(tmp_path / "tagged.mp4", shapes[:3])
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    assert len(read(VideoFile(path))[2]) == 3


def test_missing_file_is_found_missing_on_opening(tmp_path):
    with pytest.raises(SourceNotFoundError):
        read(VideoFile(tmp_path / "gone.mp4"))


# Arrays


@pytest.mark.parametrize("wrap", [lambda a: a, list, iter], ids=["array", "list", "iterator"])
def test_arrays_are_frames(shapes, wrap):
    info, report, frames = read(ArraySource(wrap(shapes), rate=Fraction(10)))
    assert [frame.pts_s for frame in frames] == pytest.approx([i / 10 for i in range(30)])
    assert info.frame_count in (30, None)
    assert (info.size_hw, report.frames) == (SIZE_HW, 30)
    np.testing.assert_array_equal(frames[3].rgb(), shapes[3])
    assert frames[3].gray((5, 7)).shape == (5, 7)


def test_range_of_arrays(shapes):
    source = open_source(shapes, start=3, end=9, stride=2)
    assert isinstance(source, ArraySource)
    assert source.frame_range == FrameRange(Position(3), Position(9), 2)
    assert [frame.index for frame in read(source)[2]] == [3, 5, 7]


GOOD = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([], "holds no frames"),
        ([GOOD.astype(np.float32)], r"Frame 0 .* float32 \[4, 6, 3\]"),
        ([GOOD, GOOD[..., 0]], r"Frame 1 .* uint8 \[4, 6\]"),
        ([GOOD, GOOD[:2]], r"Frame 1 .*\(2, 6\).*first is \(4, 6\)"),
        ([GOOD[:0]], r"uint8 \[0, 6, 3\]"),
        (["frame"], "is str"),
    ],
)
def test_wrong_arrays_are_refused(frames, sentence):
    with pytest.raises(SourceError, match=sentence):
        read(ArraySource(frames))


# The ground truth itself


def test_moving_shapes_are_what_their_masks_say():
    frames, masks = moving_shapes(12, SIZE_HW, shapes=3, seed=4)
    assert (frames.shape, masks.shape) == ((12, *SIZE_HW, 3), (12, *SIZE_HW))
    assert all(set(np.unique(mask)) == {0, 1, 2, 3} for mask in masks)
    still = masks == 0
    background = np.median(frames, axis=0)
    assert (still[1:] & still[:-1]).any()
    assert (frames[1:][still[1:] & still[:-1]] == frames[:-1][still[1:] & still[:-1]]).all()
    assert background.std() > 5
    np.testing.assert_array_equal(moving_shapes(12, SIZE_HW, shapes=3, seed=4)[0], frames)
