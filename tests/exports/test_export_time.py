"""Exported videos have the times, durations, timecodes and fields of their source."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.sources import VideoFile, open_source
from maskstream.pipeline.sources.position import parse_rate
from maskstream.pipeline.sources.reverse import reverse
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult
from tests.support.kinds import COUNT, SIZE_HW, encode, joined, number_in, numbered, write
from tests.support.media import read, write_clip, write_images

KINDS = ["gif-slides", "ts-late-start", "avi-h264-b", "avi-mpeg4-packed", "ts-joined", "mkv-vfr"]


def masks_of(video: Path, source=None) -> MaskStore:
    """A store of a source's frames, without objects."""
    info, _, frames = read(source or open_source(video))
    place = video.parent / f"{video.name}.zarr"
    writer = MaskStoreWriter(place, info=replace(info, name=str(video)), attributes={})
    empty = np.zeros(info.size_hw, np.uint16)
    for frame in frames:
        writer.append(FrameResult(frame.index, frame.pts, frame.time_base, True, empty, ()))
    writer.close(complete=True)
    return MaskStore(place)


def packets(path: Path) -> list[tuple[Fraction, Fraction]]:
    """Time and duration of every picture of a file, seconds, in order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [p for p in container.demux(stream) if p.size]
        return sorted((p.pts * stream.time_base, p.duration * stream.time_base) for p in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("form", "suffix"), [("matte", ".mp4"), ("ffv1", ".mkv")])
def test_times_and_durations_are_the_sources(kind, form, suffix, tmp_path):
    store = masks_of(write(kind, tmp_path))
    place = tmp_path / f"out{suffix}"
    export_store(store, place, ExportChoice(form))
    frames = read(VideoFile(Path(store.source.name)))[2]
    times = [(frame.pts - frames[0].pts) * frame.time_base for frame in frames]
    found = packets(place)
    assert len(found) == len(times)
    close = Fraction(1, 1000)  # Matroska counts in milliseconds
    assert all(abs(t - expected) <= close for (t, _), expected in zip(found, times, strict=True))
    last_s = frames[-1].duration * frames[-1].time_base
    assert abs(found[-1][1] - last_s) <= close
    assert not any(_is_empty_edit(place))


def _is_empty_edit(path: Path) -> list[bool]:
    """Of every edit of an MP4, whether it shows nothing."""
    content, found, at = path.read_bytes(), [], 0
    while (at := content.find(b"elst", at + 1)) >= 0:
        count = int.from_bytes(content[at + 8 : at + 12])
        edits = [content[at + 12 + 12 * n :][:12] for n in range(count)]
        found += [edit[4:8] == b"\xff\xff\xff\xff" for edit in edits]
    return found


def test_the_start_is_kept_when_asked(tmp_path):
    store = masks_of(write("ts-late-start", tmp_path))
    first_s = float(store.frame(0).pts_s)
    assert first_s >= 36_000  # ten hours of TS
    export_store(store, tmp_path / "kept.mov", ExportChoice("prores", keep_start=True))
    with av.open(str(tmp_path / "kept.mov")) as container:
        frame = next(container.decode(video=0))
        assert frame.time == pytest.approx(first_s, abs=0.01)
    export_store(store, tmp_path / "zero.mov", ExportChoice("prores"))
    with av.open(str(tmp_path / "zero.mov")) as container:
        assert next(container.decode(video=0)).time == 0
        assert float(container.duration / av.time_base) == pytest.approx(COUNT / 25, abs=0.01)


def test_a_joint_is_an_event_of_the_store(cli, tmp_path):
    clip = write("ts-joined-twice", tmp_path)
    command = ("run", clip, "-o", tmp_path / "s.zarr", "--no-seed")
    code, out, err = cli(*command)
    assert code == 0, err
    assert f"the recording starts anew at frame {COUNT}" in " ".join(out.split())
    with MaskStore(tmp_path / "s.zarr") as store:
        jumps = [event for event in store.events if event["type"] == "jump"]
        assert jumps == [{"type": "jump", "frame": COUNT, "seconds": -(COUNT - 1) / 25}]
        times = [store.frame(row).pts_s for row in range(len(store))]
    assert np.diff(times) == pytest.approx(1 / 25)
    assert cli(*command, "--resume")[0] == 0


def test_images_have_the_rate_that_is_given(cli, tmp_path):
    folder = write_images(tmp_path / "shot", [numbered(n) for n in range(4)], start=1001)
    store = tmp_path / "s.zarr"
    assert cli("run", folder, "-o", store, "--no-seed", "--quiet", "--fps", "23.976")[0] == 0
    assert MaskStore(store).source.rate == Fraction(24000, 1001)
    for more, rate in [((), Fraction(24000, 1001)), (("--fps", "50"), Fraction(50))]:
        place = tmp_path / f"{len(more)}.mp4"
        code, _, err = cli("export", store, "--format", "matte", "-o", place, *more)
        assert code == 0, err
        found = packets(place)
        assert [t for t, _ in found] == pytest.approx([n / rate for n in range(4)], abs=1e-4)
        assert found[-1][1] == pytest.approx(1 / rate, abs=1e-4)


def test_a_rate_is_for_images_and_must_be_one(cli, tmp_path):
    clip = write("mp4-h264", tmp_path)
    with pytest.raises(ConfigError, match="has its own times"):
        open_source(clip, rate=Fraction(25))
    for text in ("0", "-3", "fast", "1/0", "nan", "1e9"):
        with pytest.raises(ConfigError, match="frame rate"):
            parse_rate(text)
    assert [parse_rate(t) for t in ("29.97", "25", "12.5", "30000/1001", "59.94")] == [
        Fraction(30000, 1001),
        25,
        Fraction(25, 2),
        Fraction(30000, 1001),
        Fraction(60000, 1001),
    ]


def timecode_of(path: Path) -> str | None:
    return read(VideoFile(path))[0].timecode


def advanced(timecode: str, frames: int, rate: Fraction) -> str:
    return str(Timecode.parse(timecode).advanced(frames, rate))


def test_a_timecode_goes_along(tmp_path):
    clip = tmp_path / "clip.mov"
    with av.open(str(clip), "w") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.height, stream.width = SIZE_HW
        stream.pix_fmt = "yuvj420p"
        stream.metadata["timecode"] = "09:59:59:20"
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            output.mux(stream.encode(picture.reformat(format="yuvj420p")))
        output.mux(stream.encode(None))
    assert timecode_of(clip) == "09:59:59:20"
    store = masks_of(clip)
    export_store(store, tmp_path / "whole.mov", ExportChoice("prores"))
    export_store(store, tmp_path / "part.mp4", ExportChoice("matte", start="7"))
    assert timecode_of(tmp_path / "whole.mov") == "09:59:59:20"
    assert timecode_of(tmp_path / "part.mp4") == "10:00:00:02"
    assert timecode_of(write("mp4-h264", tmp_path)) is None


def test_timecodes_are_counted_as_smpte_does():
    ntsc = Fraction(30000, 1001)
    assert advanced("00:00:59;29", 1, ntsc) == "00:01:00;02"
    assert advanced("00:09:59;29", 1, ntsc) == "00:10:00;00"
    assert advanced("01:00:00;00", 17982, ntsc) == "01:10:00;00"
    assert advanced("00:00:59:29", 1, ntsc) == "00:01:00:00"
    assert advanced("23:59:59:24", 1, Fraction(25)) == "00:00:00:00"
    shown = "00:00:00;00"
    for number in range(1, 4000):
        shown = advanced(shown, 1, ntsc)
        assert shown == advanced("00:00:00;00", number, ntsc)


def test_interlaced_video_is_told_and_tagged(cli, tmp_path):
    clip = write("mts-h264-interlaced", tmp_path)
    code, out, _ = cli("run", clip, "-o", tmp_path / "s.zarr", "--no-seed", "--end", "6")
    assert code == 0
    assert "interlaced (top field first): its fields are woven" in " ".join(out.split())
    store = masks_of(clip)
    export_store(store, tmp_path / "o.mov", ExportChoice("prores", end="4"))
    export_store(store, tmp_path / "o.mkv", ExportChoice("ffv1", end="4"))
    for name in ("o.mov", "o.mkv"):
        assert read(VideoFile(tmp_path / name))[0].field_order == "t", name
    assert read(VideoFile(write("mp4-h264", tmp_path)))[0].field_order == ""


def test_deinterlaced_frames_are_those_of_ffmpegs_filter(cli, tmp_path):
    clip = write("mts-h264-interlaced", tmp_path)
    with av.open(str(clip)) as container:
        graph = av.filter.Graph()
        buffer = graph.add_buffer(template=container.streams.video[0])
        graph.link_nodes(buffer, graph.add("bwdif", "mode=0"), graph.add("buffersink")).configure()
        for picture in container.decode(video=0):
            graph.push(picture)
        graph.push(None)
        expected = [graph.pull() for _ in range(COUNT)]
    source = open_source(clip, deinterlace=True)
    info, report, frames = read(source)
    assert info.field_order == ""
    assert report.notes == [
        "the video is interlaced (top field first): its pictures are deinterlaced (bwdif)"
    ]
    woven = read(VideoFile(clip))[2]
    assert [frame.pts for frame in frames] == [frame.pts for frame in woven]
    for frame, wanted in zip(frames, expected, strict=True):
        assert np.array_equal(frame.view.image.to_ndarray(), wanted.to_ndarray())
    backwards = read(reverse(source, COUNT))[2][::-1]
    for frame, again in zip(frames, backwards, strict=True):
        assert (frame.index, frame.pts) == (again.index, again.pts)
        assert np.array_equal(frame.rgb(), again.rgb())

    store = tmp_path / "s.zarr"
    command = ("run", clip, "-o", store, "--no-seed", "--quiet", "--end", "6")
    assert cli(*command, "--deinterlace")[0] == 0
    code, _, err = cli(*command, "--resume")
    assert code == 1
    assert "deinterlace" in err
    assert cli("export", store, "--format", "ffv1", "-o", tmp_path / "o.mkv")[0] == 0
    info, _, found = read(VideoFile(tmp_path / "o.mkv"))
    assert info.field_order == ""
    assert np.abs(found[3].rgb().astype(int) - frames[3].rgb()).max() <= 2


def test_still_slides_are_as_long_as_they_were(tmp_path):
    slides = [0, 500, 2500]
    clip = encode(tmp_path / "slides.gif", "gif", pix_fmt="rgb8", ticks=slides, count=3)
    frames = read(VideoFile(clip))[2]
    assert [number_in(frame.rgb()) for frame in frames] == [0, 1, 2]
    store = masks_of(clip)
    export_store(store, tmp_path / "o.mp4", ExportChoice("matte"))
    found = packets(tmp_path / "o.mp4")
    times = [t for t, _ in found]
    assert [float(b - a) for a, b in pairwise(times)] == pytest.approx([0.5, 2.0])
    assert found[-1][1] == frames[-1].duration * frames[-1].time_base


@pytest.mark.parametrize("kind", ["ts-late-start", "gif-slides", "mkv-vfr", "avi-h264-b"])
def test_an_overlay_of_a_run_has_the_sources_times(cli, kind, tmp_path):
    clip = write(kind, tmp_path)
    place = tmp_path / "overlay.mp4"
    span = ("--end", "6")
    command = ("run", clip, "-o", tmp_path / "s.zarr", "--overlay", place, "--no-seed", "--quiet")
    assert cli(*command, *span)[0] == 0
    frames = read(VideoFile(clip))[2][:6]
    expected = [float((f.pts - frames[0].pts) * f.time_base) for f in frames]
    found = packets(place)
    assert [float(t) for t, _ in found] == pytest.approx(expected, abs=1e-3)
    assert found[-1][1] == pytest.approx(frames[-1].duration * frames[-1].time_base, abs=1e-3)
    assert not any(_is_empty_edit(place))


def packets_of_sound(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        found = [p for p in container.demux(stream) if p.size]
        return [(float(p.pts * stream.time_base), bytes(p)) for p in found]


@pytest.mark.parametrize(
    ("form", "suffix"), [("green", ".mp4"), ("prores", ".mov"), ("ffv1", ".mkv")]
)
@pytest.mark.parametrize("start", [None, "20", "30"])
def test_the_sound_of_joined_recordings_stays_with_the_frames(tmp_path, form, suffix, start):
    frames = np.array([numbered(n) for n in range(25)])
    part = write_clip(tmp_path / "part.ts", frames, sound="aac", sound_s=1.0)
    clip = joined(tmp_path / "clip.ts", part, part)
    source = read(VideoFile(clip))[2]
    assert len(source) == 50
    place = tmp_path / f"out{suffix}"
    export_store(masks_of(clip), place, ExportChoice(form, start=start))
    times = [t for t, _ in packets_of_sound(place)]
    assert all(later > earlier for earlier, later in pairwise(times))
    length_s = (50 - int(start or 0)) / 25
    assert times[-1] == pytest.approx(length_s, abs=0.15)
    assert times[0] == pytest.approx(0, abs=0.15)
    assert len(times) == pytest.approx(length_s * 48000 / 1024, abs=4)


def test_a_range_after_a_joint_has_no_event(tmp_path):
    clip = write("ts-joined-twice", tmp_path)
    for start, jumps in [("120", []), ("90", [COUNT]), (str(COUNT), [])]:
        frames = read(open_source(clip, start=start))[2]
        assert [frame.index for frame in frames if frame.jump_s] == jumps
    strided = read(open_source(clip, stride=7))[2]
    assert [frame.index for frame in strided if frame.jump_s] == [105]


def test_a_rate_is_refused_for_a_video(tmp_path):
    store = masks_of(write("mp4-h264", tmp_path))
    with pytest.raises(ConfigError, match="has its own times"):
        export_store(store, tmp_path / "o.mp4", ExportChoice("matte", fps=Fraction(30)))
