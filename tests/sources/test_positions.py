"""Positions as timecodes, prompts on frames that are not there, and files that may not be read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from fractions import Fraction

import av
import pytest

from maskstream.pipeline.errors import ConfigError, UnreadableSourceError
from maskstream.pipeline.prompts import load_prompts
from maskstream.pipeline.sources import Position, open_source
from maskstream.pipeline.sources.known_frames import known_frames
from maskstream.pipeline.sources.seekable import open_seekable
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.store import MaskStore
from tests.support.kinds import COUNT, encode, numbered, write
from tests.support.media import read, write_images


def with_timecode(path, timecode: str, rate: int | Fraction = 25):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=rate)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        stream.metadata["timecode"] = timecode
        for number in range(60):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            output.mux(stream.encode(picture.reformat(format="yuvj420p")))
        output.mux(stream.encode(None))
    return path


def indices(source) -> list[int]:
    return [frame.index for frame in read(source)[2]]


@pytest.mark.parametrize(
    ("start", "first"),
    [("00:00:01:05", 30), ("10:00:01:05", 30), ("10:00:00:00", 0), ("00:00:00:59", 59)],
)
def test_a_timecode_counts_from_the_sources_own_or_from_its_start(tmp_path, start, first):
    clip = with_timecode(tmp_path / "clip.mov", "10:00:00:00")
    assert indices(open_source(clip, start=start))[0] == first


def test_drop_frame_timecodes_are_those_of_the_camera(tmp_path):
    clip = with_timecode(tmp_path / "clip.mov", "00:00:59;20", Fraction(30000, 1001))
    assert read(open_source(clip))[0].timecode == "00:00:59;20"
    assert indices(open_source(clip, start="00:01:00;02", end="00:01:00;04")) == [10, 11]


def test_times_are_still_times():
    assert Position.parse("00:00:03.5").value == Fraction(7, 2)
    assert Position.parse("1:05").value == 65
    assert Position.parse("00:00:03.50").value == Fraction(7, 2)
    assert Position.parse("01:00:03:12").value == Timecode(1, 0, 3, 12)
    assert str(Position.parse("01:00:03;12")) == "timecode 01:00:03;12"


def test_images_need_a_rate_for_timecodes(tmp_path):
    folder = write_images(tmp_path / "shot", [numbered(n) for n in range(30)])
    with pytest.raises(ConfigError, match="--fps"):
        indices(open_source(folder, start="00:00:01:02"))
    assert indices(open_source(folder, start="00:00:01:02", rate=Fraction(24)))[0] == 26


def test_an_export_takes_timecodes_too(cli, tmp_path):
    clip = with_timecode(tmp_path / "clip.mov", "10:00:00:00")
    store = tmp_path / "s.zarr"
    assert cli("run", clip, "-o", store, "--no-seed", "--quiet", "--end", "10:00:00:20")[0] == 0
    assert MaskStore(store).indices.tolist() == list(range(20))
    place = tmp_path / "png"
    span = ("--start", "10:00:00:05", "--end", "00:00:00:08")
    assert cli("export", store, "--format", "png", "-o", place, *span)[0] == 0
    assert sorted(file.stem for file in place.iterdir()) == ["000005", "000006", "000007"]


PROMPTS = '{"version": 1, "events": [{"frame": %d, "type": "point", "object": 1, "xy": [5, 5]}]}'


@pytest.mark.parametrize(
    ("source", "frame", "options", "nearest"),
    [
        ("shot", 1003, (), "1002 and 1004"),
        ("shot", 0, (), "1001"),
        ("shot", 1002, ("--stride", "2"), "1001 and 1004"),
        ("clip.mkv", 7, ("--stride", "3"), "6 and 9"),
        ("clip.mkv", 7, ("--end", "5"), "4"),
        ("clip.mp4", COUNT, (), str(COUNT - 1)),
        ("clip.mp4", 7, ("--start", "0.5s", "--end", "1s"), "13"),
        ("clip.mp4", 34, ("--start", "0.5s", "--end", "1s"), "24"),
    ],
)
def test_a_prompt_on_no_frame_is_an_error_before_anything_is_written(
    cli, tmp_path, source, frame, options, nearest
):
    write_images(tmp_path / "shot", [numbered(n) for n in range(6)], start=1001)
    (tmp_path / "shot" / "1003.png").unlink()
    for name in ("clip.mkv", "clip.mp4"):
        encode(tmp_path / name)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(PROMPTS % frame)
    store = tmp_path / "s.zarr"
    code, _, err = cli("run", tmp_path / source, "-o", store, "--prompts", prompts, *options)
    assert code == 1
    assert f"nearest: {nearest})" in " ".join(err.split())
    assert not store.exists()


@pytest.mark.parametrize("kind", ["mkv-live", "webm-vp8-live", "ts-h264-b", "raw-h264"])
@pytest.mark.parametrize("options", [{}, {"start": "3", "end": "300"}, {"start": "0.5s"}])
def test_frames_of_a_run_are_known_where_no_number_of_frames_is_stated(tmp_path, kind, options):
    source = open_source(write(kind, tmp_path), **options)
    info, _, frames = read(source)
    expected = [frame.index for frame in frames]
    assert known_frames(source, info, 10**6) == expected
    assert known_frames(source, info, 20) == [n for n in expected if n <= 21]


def test_prompts_take_timecodes(cli, tmp_path):
    clip = with_timecode(tmp_path / "clip.mov", "10:00:00:00")
    prompts = tmp_path / "prompts.json"
    prompts.write_text(PROMPTS.replace("%d", '"10:00:01:05"'))
    assert load_prompts(prompts, open_source(clip)).frames == {30}
    store = tmp_path / "s.zarr"
    assert cli("run", clip, "-o", store, "--prompts", prompts, "--quiet")[0] == 0
    prompts.write_text(PROMPTS.replace("%d", '"0:12 s"'))
    code, _, err = cli("run", clip, "-o", tmp_path / "t.zarr", "--prompts", prompts)
    assert code == 1
    assert "line 1: frame: '0:12 s' is not a position" in " ".join(err.split())


@contextmanager
def as_nobody():
    """Without the rights of root, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    clip = encode(tmp_path / "clip.mp4")
    folder = write_images(tmp_path / "shot", [numbered(0)])
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    targets = [clip, folder / "0.png"]
    for target in targets:
        target.chmod(0)
    with as_nobody():
        for target in targets:
            with pytest.raises(UnreadableSourceError, match="permission denied"):
                open_seekable(target)
    folder.chmod(0)
    with as_nobody(), pytest.raises(UnreadableSourceError, match="permission denied"):
        open_seekable(folder)
    folder.chmod(0o755)
