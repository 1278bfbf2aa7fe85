"""Reading backwards: the very frames of the forward reader, the last first, few held at once."""

from __future__ import annotations

import gc
import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.sources import ArraySource, FrameRange, ImageSequence, VideoFile, reverse
from maskstream.pipeline.sources.reverse import check_reversible
from maskstream.pipeline.types import Frame
from tests.support.media import damage_packets, moving_shapes, read, write_video

SIZE_HW = (48, 64)
COUNT = 60
B_FRAMES = {"bf": "3", "g": "12"}
VIDEOS = {
    "b-frames": ("a.mp4", {"options": B_FRAMES}),
    "open gop": ("a.mp4", {"options": B_FRAMES | {"x264-params": "open-gop=1"}}),
    "intra refresh": ("a.mp4", {"options": {"g": "12", "x264-params": "intra-refresh=1"}}),
    "one keyframe": ("a.mkv", {"options": {"g": "1000"}}),
    "variable rate": (
        "a.mp4",
        {"options": B_FRAMES, "pts": [40 * i + 7 * (i % 5) for i in range(COUNT)]},
    ),
    "transport stream": ("a.ts", {"options": B_FRAMES}),
    "no timestamps in order": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
    "all intra": ("a.mkv", {"codec": "ffv1"}),
    "turned": ("a.mp4", {"options": B_FRAMES, "rotation": 90, "sample_aspect": Fraction(4, 3)}),
}


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(COUNT, SIZE_HW)[0]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(reverse, "CHUNK_FRAMES", 7)


def assert_reversed(source, last: int, *, pixels: bool = True) -> None:
    """`reverse` gives what the source gives up to `last`, in the opposite order."""
    _, _, forward = read(source)
    expected = [f for f in forward if f.index <= last][::-1]
    info, report, found = read(reverse.reverse(source, last))
    stamps = [(f.index, f.pts, f.time_base, f.size_hw) for f in found]
    assert stamps == [(f.index, f.pts, f.time_base, f.size_hw) for f in expected]
    assert info.frame_count == report.frames == len(expected)
    for one, other in zip(found, expected, strict=True) if pixels else ():
        assert np.array_equal(one.rgb(), other.rgb())
        assert np.array_equal(one.gray((24, 32)), other.gray((24, 32)))


@pytest.mark.parametrize("kind", VIDEOS)
def test_videos(tmp_path, shapes, kind):
    name, options = VIDEOS[kind]
    assert_reversed(VideoFile(write_video(tmp_path / name, shapes, **options)), COUNT - 1)


@pytest.mark.parametrize(
    ("start", "end", "stride"),
    [(None, None, 1), (5, 40, 1), (5, None, 4), (None, 50, 7), ("0.4s", "1.8s", 3), (30, None, 1)],
)
@pytest.mark.parametrize("last", [0, 31, 59, 500])
@pytest.mark.parametrize("kind", ["video", "arrays"])
def test_ranges(tmp_path, shapes, kind, start, end, stride, last):
    frame_range = FrameRange.of(start, end, stride)
    if kind == "video":
        path = write_video(tmp_path / "a.mp4", shapes, options=B_FRAMES)
        assert_reversed(VideoFile(path, frame_range), last)
    else:
        assert_reversed(ArraySource(shapes, Fraction(25), frame_range), last)


@pytest.mark.parametrize(("start", "stride"), [(None, 1), (8, 3)])
@pytest.mark.parametrize("rate", [None, Fraction(25)])
def test_images_with_gaps_in_their_numbers(tmp_path, shapes, start, stride, rate):
    for number in range(3, 60, 4):
        cv2.imwrite(str(tmp_path / f"img_{number:03d}.png"), shapes[number])
    (tmp_path / "img_012.png").write_bytes(b"no picture")
    source = ImageSequence(tmp_path, rate, FrameRange.of(start, None, stride))
    forward = [f.index for f in read(source)[2]]
    assert 12 not in forward
    found = read(reverse.reverse(source, 43))[2]
    assert [f.index for f in found] == [i for i in forward if i <= 43][::-1]
    expected = {f.index: f for f in read(source)[2]}
    for frame in found:
        assert (frame.pts, frame.time_base) == (expected[frame.index].pts, frame.time_base)
        assert np.array_equal(frame.rgb(), expected[frame.index].rgb())


def test_frames_of_a_damaged_video_keep_their_numbers(tmp_path, shapes):
    """What the decoder paints over the damage depends on what it has decoded before."""
    path = write_video(tmp_path / "a.mp4", shapes, options=B_FRAMES)
    damage_packets(path, [20, 21, 40], intact=0.5)
    assert_reversed(VideoFile(path), COUNT - 1, pixels=False)


def most_held(source) -> int:
    """The most frames that are alive at once while a source is read."""

    def alive() -> int:
        return sum(type(o) is Frame for o in gc.get_objects())  # isinstance asks lazy proxies

    others = alive()
    with source.open() as reader:
        return max(alive() - others for _ in reader)


@pytest.mark.parametrize("options", [B_FRAMES, {"g": "1000"}])
def test_few_frames_are_held_at_once(tmp_path, shapes, monkeypatch, options):
    path = write_video(tmp_path / "a.mp4", shapes, options=options)
    assert most_held(reverse.reverse(VideoFile(path), 20)) == 7
    monkeypatch.setattr(reverse, "CHUNK_PIXELS", 2 * SIZE_HW[0] * SIZE_HW[1])
    assert most_held(reverse.reverse(VideoFile(path), 20)) == 2


class Camera:
    def open(self):
        raise AssertionError("not opened")


def test_what_cannot_be_read_twice_is_refused(tmp_path, shapes):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for source in (Camera(), VideoFile(pipe), ArraySource(iter(shapes))):
        with pytest.raises(SourceError, match="--backward"):
            check_reversible(source)
