"""Frames asked for by number are the ones that reading in order gives."""

from __future__ import annotations

import numpy as np
import pytest

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.sources.seek import SeekableVideo
from tests.support.media import moving_shapes, read, write_video

COUNT = 60
FLAVOURS = [
    pytest.param("a.mp4", {"options": {"bf": "3", "g": "12"}}, id="b-frames"),
    pytest.param(
        "b.mkv", {"options": {"bf": "3", "g": "10", "x264-params": "open-gop=1"}}, id="open-gop"
    ),
    pytest.param("c.mp4", {"options": {"g": "600"}}, id="one-keyframe"),
    pytest.param("d.avi", {"codec": "mpeg4"}, id="avi"),
    pytest.param("e.mp4", {"rotation": 90, "options": {"g": "7"}}, id="turned"),
    pytest.param("f.mkv", {"pts": [40 * i + (i % 3) * 7 for i in range(COUNT)]}, id="vfr"),
]


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(COUNT, (48, 64))[0]


@pytest.mark.parametrize(("name", "how"), FLAVOURS)
def test_random_access_gives_the_frames_of_reading_in_order(tmp_path, shapes, name, how):
    source = VideoFile(write_video(tmp_path / name, shapes, **how))
    _, _, expected = read(source)
    video = SeekableVideo(source)
    order = np.random.default_rng(1).permutation(len(expected)).tolist()
    for index in [*order, 0, len(expected) - 1, 5, 4, 3]:
        frame = video.frame(index)
        assert (frame.index, frame.pts) == (index, expected[index].pts)
        assert np.array_equal(frame.rgb(), expected[index].rgb())
    with pytest.raises(UnreadableSourceError, match=f"ends with {COUNT - 1}"):
        video.frame(COUNT)
    assert video.frame(2).index == 2
    video.close()


@pytest.mark.parametrize(("name", "how"), FLAVOURS)
def test_a_stretch_is_part_of_the_whole_in_both_directions(tmp_path, shapes, name, how):
    source = VideoFile(write_video(tmp_path / name, shapes, **how))
    _, _, expected = read(source)
    video = SeekableVideo(source)
    for first, last in [(0, 4), (23, 31), (50, COUNT - 1)]:
        for stretch, order in [
            (video.between(first, last), expected[first : last + 1]),
            (video.backwards(first, last), expected[first : last + 1][::-1]),
        ]:
            info, _, frames = read(stretch)
            assert info.frame_count == last - first + 1
            assert [(f.index, f.pts) for f in frames] == [(f.index, f.pts) for f in order]
            pairs = zip(frames, order, strict=True)
            assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in pairs)
    video.close()
