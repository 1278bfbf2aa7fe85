"""Images by content, of film formats, by hash patterns, and folders that hold more than one."""

from __future__ import annotations

import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import MissingExtraError, UnreadableSourceError
from maskstream.pipeline.sources import ImageSequence, VideoFile, open_source
from maskstream.pipeline.sources.seekable import open_seekable
from tests.support.kinds import encode, number_in, numbered
from tests.support.media import read, write_images


def save(path: Path, number: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(numbered(number), cv2.COLOR_RGB2BGR))
    return path


@pytest.mark.parametrize("pattern", ["shot.####.png", "shot.#.png", "shot.%04d.png", "shot.*.png"])
def test_patterns_name_a_sequence(tmp_path, pattern):
    for number in range(1001, 1005):
        save(tmp_path / f"shot.{number}.png", number - 1000)
        save(tmp_path / f"other.{number}.png", 9)
    _, _, frames = read(open_source(tmp_path / pattern))
    assert [frame.index for frame in frames] == [1001, 1002, 1003, 1004]
    assert [number_in(frame.rgb()) for frame in frames] == [1, 2, 3, 4]


def test_hashes_count_digits_like_printf(tmp_path):
    for name in ("a1.png", "a22.png", "a333.png"):
        save(tmp_path / name, 1)
    assert [file.index for file in ImageSequence(tmp_path / "a##.png").files()] == [22, 333]


@pytest.mark.parametrize(
    ("names", "choices"),
    [
        (["a.0001.png", "a.0002.png", "b.0001.png", "b.0002.png"], ["a.####.png", "b.####.png"]),
        (["0001.jpg", "0002.jpg", "0001.png", "0002.png"], ["####.jpg", "####.png"]),
        (["f9.png", "f10.png", "m_9.png", "m_10.png"], ["f*.png", "m_*.png"]),
        (
            ["f_1.jpg", "f_2.jpg", "f_1_mask.png", "f_2_mask.png"],
            ["f_#.jpg", "f_#_mask.png"],
        ),
        (["f_1.png", "f_2.png", "f_1.PNG", "f_2.PNG"], None),
    ],
)
def test_a_folder_with_several_sequences_names_them(tmp_path, names, choices):
    for name in names:
        save(tmp_path / name, 1)
    if choices is None:  # one sequence, whose suffixes differ in case only
        assert len(ImageSequence(tmp_path).files()) == len(names)
        return
    with pytest.raises(UnreadableSourceError, match="several sequences") as raised:
        open_seekable(tmp_path)
    for choice in choices:
        assert f"{tmp_path / choice} (2 images)" in str(raised.value)
        assert len(ImageSequence(tmp_path / choice).files()) == 2


def test_a_folder_of_single_pictures_is_one_sequence(tmp_path):
    for name in ("cat.jpg", "dog.png", "IMG_1.png", "DSC_7.png"):
        save(tmp_path / name, 1)
    assert len(ImageSequence(tmp_path).files()) == 4


def test_an_animated_png_is_a_video_whatever_its_name(tmp_path):
    moving = encode(tmp_path / "moving.apng", "apng", pix_fmt="rgb24", count=7)
    named = tmp_path / "named.png"
    shutil.copy(moving, named)
    source = open_source(named)
    assert isinstance(source, VideoFile)
    assert [number_in(frame.rgb()) for frame in read(source)[2]] == list(range(7))
    assert isinstance(open_source(save(tmp_path / "still.png", 3)), ImageSequence)


def test_an_animated_webp_is_refused_and_a_still_one_read(tmp_path):
    frames = [av.VideoFrame.from_ndarray(numbered(n), format="rgb24") for n in range(3)]
    moving = tmp_path / "moving.webp"
    with av.open(str(moving), "w") as output:
        stream = output.add_stream("libwebp_anim", rate=25)
        stream.height, stream.width = numbered(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(UnreadableSourceError, match="animated WebP"):
        open_source(moving)
    assert number_in(read(open_source(save(tmp_path / "still.webp", 5)))[2][0].rgb()) == 5


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("exr", "half"), ("exr", "float"), ("dpx", "uint16"), ("dpx", "uint10"), ("tga", "uint8")]
    + [("tif", "uint16"), ("hdr", "float")],
)
def test_film_images_are_read(tmp_path, suffix, kind):
    oiio = pytest.importorskip("OpenImageIO")
    folder = tmp_path / "shot"
    folder.mkdir()
    for number in range(3):
        shown = numbered(number).astype(np.float32) / 255
        linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
        pixels = linear if suffix in ("exr", "hdr") else shown
        path = str(folder / f"shot.{number:04}.{suffix}")
        spec = oiio.ImageSpec(64, 48, 3, "uint16" if kind == "uint10" else kind)
        if kind == "uint10":
            spec.attribute("oiio:BitsPerSample", 10)
        output = oiio.ImageOutput.create(path)
        assert output.open(path, spec)
        output.write_image(np.ascontiguousarray(pixels, np.float32))
        output.close()
    info, _, frames = read(open_source(folder, rate=Fraction(24)))
    assert info.size_hw == (48, 64)
    for number, frame in enumerate(frames):
        off = np.abs(frame.rgb().astype(int) - numbered(number))
        assert off.max() <= (6 if suffix == "hdr" else 1)
    assert frames[2].pts_s == pytest.approx(2 / 24)


def test_without_the_extra_film_images_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    (tmp_path / "a.exr").write_bytes(b"v/1\x01")
    with pytest.raises(MissingExtraError, match=r"maskstream\[editors\]"):
        read(open_source(tmp_path / "a.exr"))


def test_a_damaged_film_image_is_counted(tmp_path):
    pytest.importorskip("OpenImageIO")
    write_images(tmp_path / "shot", [numbered(0)])
    (tmp_path / "shot" / "1.exr").write_bytes(b"no image")
    _, report, frames = read(open_source(tmp_path / "shot"))
    assert (len(frames), report.corrupt_packets) == (1, 1)
