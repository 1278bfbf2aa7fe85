"""Frames asked for by number are the ones that reading in order gives, in every kind of file."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources import VideoFile, seek
from maskstream.pipeline.sources.frame_table import FrameTable
from maskstream.pipeline.sources.reverse import reverse
from maskstream.pipeline.sources.seek import SeekableVideo
from tests.support.kinds import COUNT, KINDS, number_in, write
from tests.support.media import moving_shapes, read, write_clip

# Damage, joints and edit lists: kinds that hold other frames than the drawn ones, once each.
_OTHER_FRAMES = {"mp4-edit-list", "mkv-live", *(k for k in KINDS if "joined" in k)}
_DAMAGED = {kind for kind in KINDS if kind.endswith(("-hole", "-cut"))}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """Name of a kind, its file, and its frames in order."""
    path = write(request.param, tmp_path_factory.mktemp("kinds"))
    return request.param, VideoFile(path), read(VideoFile(path))[2]


def same(frame, expected) -> bool:
    """Whether two frames are the same, with time and pixels."""
    about = [(f.index, f.pts, f.duration, f.jump_s) for f in (frame, expected)]
    return about[0] == about[1] and np.array_equal(frame.rgb(), expected.rgb())


def test_reading_in_order_gives_every_frame_once_in_time(kind):
    name, _, frames = kind
    drawn = [number_in(frame.rgb()) for frame in frames]
    if name not in _OTHER_FRAMES | _DAMAGED:
        assert drawn == list(range(COUNT))
    times = [frame.pts for frame in frames]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert all(frame.duration for frame in frames)


@pytest.mark.parametrize("seed", range(3))
def test_random_access_gives_the_frames_of_reading_in_order(kind, seed):
    _, source, expected = kind
    video = SeekableVideo(source)
    rng = np.random.default_rng(seed)
    last = len(expected) - 1
    jumps = rng.integers(0, last + 1, 24).tolist()
    near = np.clip(jumps[-1] + rng.integers(-4, 5, 8), 0, last).tolist()
    for index in [*jumps, *near, last, 0, 1, last]:
        assert same(video.frame(index), expected[index]), index
    with pytest.raises(UnreadableSourceError, match=f"ends with {last}"):
        video.frame(last + 1)
    assert video.counted
    assert video.numbers == range(last + 1)
    video.close()


def test_a_span_is_part_of_the_whole_in_both_directions(kind):
    _, source, expected = kind
    video = SeekableVideo(source)
    end = len(expected)
    for first, last in [(end // 2, end // 2 + 9), (0, 4), (end - 7, end - 1)]:
        for span, order in [
            (video.between(first, last), expected[first : last + 1]),
            (video.backwards(first, last), expected[first : last + 1][::-1]),
        ]:
            info, _, frames = read(span)
            assert info.frame_count == last - first + 1
            assert all(map(same, frames, order))
            assert len(frames) == len(order)
    video.close()


def test_the_whole_video_in_reverse(kind):
    _, source, expected = kind
    frames = read(reverse(source, len(expected)))[2]
    assert len(frames) == len(expected)
    assert all(map(same, frames, expected[::-1]))


def test_the_number_of_frames_is_about_right_at_once(kind):
    name, source, expected = kind
    video = SeekableVideo(source)
    if name not in _DAMAGED | {"mkv-live", "mp4-edit-list"}:
        assert len(video.numbers) == len(expected)
    video.close()


def test_packets_are_counted_in_long_files_where_that_is_right(kind, monkeypatch):
    name, source, expected = kind
    monkeypatch.setattr(seek, "SURVEY_PIXELS", 0)
    if name in _DAMAGED:
        pytest.skip("in a long file, damage far before a frame is found only by decoding it")
    video = SeekableVideo(source)
    for index in [len(expected) - 1, 40, 41, 3, len(expected) // 2]:
        assert same(video.frame(index), expected[index]), index
    for order in (video.between(30, 39), video.backwards(30, 39)):
        assert sorted(frame.index for frame in read(order)[2]) == list(range(30, 40))
        assert all(same(frame, expected[frame.index]) for frame in read(order)[2])
    if name in ("mp4-h264-b", "mkv-vfr", "mp4-hevc-open-gop", "mov-prores"):
        assert not video.counted
    video.close()


def test_the_table_is_kept_for_the_next_time(kind, tmp_path, monkeypatch):
    _, source, expected = kind
    kept = tmp_path / "frames.npz"
    video = SeekableVideo(source, kept)
    assert not video.counted
    video.frame(len(expected) - 1)
    with pytest.raises(UnreadableSourceError):
        video.frame(len(expected))
    video.close()
    again = SeekableVideo(source, kept)
    assert again.counted
    assert again.numbers == range(len(expected))
    for index in (0, len(expected) - 1, 20, 50 % len(expected)):
        assert same(again.frame(index), expected[index])
    again.close()
    for damaged in (b"", b"no archive", kept.read_bytes()[:300]):
        kept.write_bytes(damaged)
        other = SeekableVideo(source, kept)
        assert not other.counted
        other.close()


def test_a_table_of_another_file_is_not_used(tmp_path):
    one, other = (write(name, tmp_path) for name in ("mp4-h264", "ts-joined"))
    kept = tmp_path / "frames.npz"
    video = SeekableVideo(VideoFile(one), kept)
    with pytest.raises(UnreadableSourceError):
        video.frame(COUNT)
    video.close()
    assert FrameTable.load(kept, None) is None
    assert not SeekableVideo(VideoFile(other), kept).counted


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.avi", "a.ts"])
def test_longer_sound_makes_no_longer_video(tmp_path, name):
    frames = moving_shapes(20, (48, 64))[0]
    path = write_clip(tmp_path / name, frames, sound_s=3.0)  # 0.8 s of pictures
    video = SeekableVideo(VideoFile(path))
    assert len(video.numbers) == 20
    count = video.info.frame_count
    assert count is None or abs(count - 20) <= 1
    video.close()


@pytest.mark.parametrize("limit", ["SURVEY_PIXELS", "SURVEY_BYTES"])
def test_much_to_decode_is_counted_instead(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(seek, limit, 1)
    for name in ("mp4-h264-b", "mkv-vfr"):  # Matroska states no decoding times
        video = SeekableVideo(VideoFile(write(name, tmp_path)))
        assert number_in(video.frame(80).rgb()) == 80
        assert not video.counted
        video.close()


def test_the_last_frame_shows_that_it_is_the_last(tmp_path):
    kept = tmp_path / "frames.npz"
    for name in ("ts-h264-b", "mp4-h264-b", "mkv-vfr"):
        video = SeekableVideo(VideoFile(write(name, tmp_path)), kept)
        video.frame(COUNT - 1)
        assert video.counted
        assert kept.exists()
        video.close()
