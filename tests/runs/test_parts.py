"""Where a long video is cut, and what is said of videos that cannot be."""

from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.runs.parts import check_splittable, parts_of
from maskstream.pipeline.sources import ArraySource, open_source
from maskstream.pipeline.sources.seek import counted_span
from tests.support.media import damage_packets, moving_shapes, read, write_video

SIZE = (72, 128)
RATE = 10


def film(*lengths):
    """Shots of so many frames, each of a scene of its own."""
    shots = [moving_shapes(n, SIZE, seed=seed)[0] for seed, n in enumerate(lengths)]
    return np.concatenate(shots)


@pytest.mark.parametrize(
    ("lengths", "part_min_s", "expected"),
    [
        ((12, 9, 15), 0.1, [(0, 12), (12, 21), (21, 36)]),
        ((12, 9, 15), 1.0, [(0, 12), (12, 36)]),  # a short shot waits for the next one
        ((12, 15, 9), 1.0, [(0, 12), (12, 36)]),  # a short rest belongs to the part before it
        ((12, 9, 15), 9.0, [(0, 36)]),
        ((12,), 0.1, [(0, 12)]),
    ],
)
def test_parts_begin_at_cuts_and_are_long_enough(lengths, part_min_s, expected):
    source = ArraySource(list(film(*lengths)), Fraction(RATE))
    assert parts_of(source, load_config(), part_min_s) == expected


def test_motion_is_no_cut():
    pan = [np.roll(film(1)[0], 6 * t, axis=1) for t in range(12)]
    assert len(parts_of(ArraySource(pan, Fraction(RATE)), load_config(), 0.1)) == 1


def test_a_range_keeps_its_frame_numbers_and_a_damaged_video_is_not_cut(tmp_path):
    clip = write_video(tmp_path / "film.mp4", film(12, 9, 15), rate=RATE)
    source = open_source(clip, start="5", end="30")
    assert parts_of(source, load_config(), 0.5) == [(5, 12), (12, 21), (21, 30)]
    damage_packets(clip, [20])
    assert len(parts_of(open_source(clip), load_config(), 0.5)) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_part_is_read_without_the_frames_before_it(tmp_path, suffix):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    options = {"g": "8"} if codec == "libx264" else {}
    clip = write_video(tmp_path / f"film{suffix}", film(12, 9, 15), codec=codec, options=options)
    source = open_source(clip, start=21, end=30)
    _, _, expected = read(source)
    with counted_span(source, range(21, 30)) as span:
        info, _, found = read(span)
    assert (info.frame_count, [f.index for f in found]) == (9, list(range(21, 30)))
    assert [f.pts for f in found] == [f.pts for f in expected]
    assert all((a.rgb() == b.rgb()).all() for a, b in zip(found, expected, strict=True))


def test_a_file_of_detections_is_refused():
    with pytest.raises(ConfigError, match="--split-shots"):
        check_splittable(load_config(None, ["detector.detections=boxes.txt"]))
