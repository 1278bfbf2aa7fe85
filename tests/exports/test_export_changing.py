"""Sources that change size or format, gray ones and ones with alpha, in every video export."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.mastering import x264_mastering
from maskstream.pipeline.sources import VideoFile
from tests.exports.test_export_time import masks_of
from tests.support.kinds import encode, joined, number_in
from tests.support.media import read

FORMATS = [
    ("ffv1", ".mkv"),
    ("prores", ".mov"),
    ("vp9", ".webm"),
    ("green", ".mp4"),
    ("overlay", ".mp4"),
    ("matte", ".mp4"),
    ("matte-lossless", ".mkv"),
]


def write(path: Path, pix_fmt: str, codec: str = "ffv1", container: str | None = None, **how):
    return encode(path, codec, pix_fmt=pix_fmt, container=container, count=6, **how)


def changing(folder: Path, what: str) -> Path:
    """A clip that changes size or pixel format after six frames."""
    if what == "size":
        parts = [
            write(folder / f"{n}.ts", "yuv420p", "libx264", size_hw=size, start=6 * n)
            for n, size in enumerate([(48, 64), (96, 128)])
        ]
    else:
        formats = {"depth": ("yuv420p", "yuv420p10le"), "sampling": ("yuv420p", "yuv444p")}[what]
        parts = [
            write(folder / f"{n}.ts", pix_fmt, "libx264", start=6 * n)
            for n, pix_fmt in enumerate(formats)
        ]
    return joined(folder / "changing.ts", *parts)


@pytest.mark.parametrize("what", ["size", "depth", "sampling"])
@pytest.mark.parametrize(("form", "suffix"), FORMATS)
def test_one_format_is_settled_before_the_first_frame(tmp_path, what, form, suffix):
    clip = changing(tmp_path, what)
    frames = read(VideoFile(clip))[2]
    assert len(frames) == 12
    assert {frame.size_hw for frame in frames} == {(48, 64)}
    place = tmp_path / f"out{suffix}"
    export_store(masks_of(clip), place, ExportChoice(form))
    made = read(VideoFile(place))[2]
    assert len(made) == 12
    assert len({frame.view.image.format.name for frame in made}) == 1
    if form in ("ffv1", "prores"):
        assert [number_in(frame.rgb()) for frame in made] == [*range(6), *range(6)]


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        ("yuva420p", "yuva420p"),
        ("yuva422p", "yuva422p"),
        ("yuva420p10le", "yuva420p10le"),
        ("yuva444p10le", "yuva444p10le"),
        ("yuv420p", "yuva420p"),
    ],
)
def test_a_lossless_export_keeps_the_format(tmp_path, pix_fmt, expected):
    clip = write(tmp_path / "clip.mkv", pix_fmt)
    export_store(masks_of(clip), tmp_path / "o.mkv", ExportChoice("ffv1"))
    with av.open(str(tmp_path / "o.mkv")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == expected


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le", "ya8"])
@pytest.mark.parametrize(("form", "suffix"), FORMATS[:3] + [("overlay", ".mp4")])
def test_gray_stays_neutral(tmp_path, pix_fmt, form, suffix):
    clip = write(tmp_path / "clip.mkv", pix_fmt)
    place = tmp_path / f"out{suffix}"
    export_store(masks_of(clip), place, ExportChoice(form))
    for frame in read(VideoFile(place))[2]:
        image = frame.view.image
        bits = image.format.components[1].bits
        for plane in image.planes[1:3]:
            values = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else "<u2")
            rows = values.reshape(plane.height, -1)[:, : plane.width]
            assert np.abs(rows.astype(int) - (1 << bits - 1)).max() <= (form == "vp9")


MASTERING = (
    "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    ":cll=1000,400"
)


def test_mastering_data_of_hdr_video_is_passed_on(tmp_path):
    tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    options = {"x264-params": f"{MASTERING}:{tags}"}
    clip = write(tmp_path / "pq.mp4", "yuv420p10le", "libx264", options=options)
    store = masks_of(clip)
    for form in ("green", "overlay"):
        place = tmp_path / f"{form}.mp4"
        export_store(store, place, ExportChoice(form))
        frame = read(VideoFile(place))[2][0]
        assert x264_mastering(frame) == MASTERING
    export_store(store, tmp_path / "matte.mp4", ExportChoice("matte"))
    assert x264_mastering(read(VideoFile(tmp_path / "matte.mp4"))[2][0]) is None
