"""Sources: every frame once, with its own number, its own time and the displayed pixels."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from media import damage_packets, moving_shapes, write_audio, write_video

from pipeline.errors import (
    ConfigError,
    SourceError,
    SourceNotFoundError,
    UnreadableSourceError,
)
from pipeline.sources import (
    ArraySource,
    ArrayView,
    FrameRange,
    ImageSequence,
    Position,
    VideoFile,
    open_source,
)
from pipeline.sources.video import VideoView
from pipeline.types import Frame, Source, SourceInfo, SourceReport

SIZE_HW = (48, 64)
LOSSLESS = {"codec": "ffv1", "pix_fmt": "bgr0"}


def read(source: Source) -> tuple[SourceInfo, SourceReport, list[Frame]]:
    with source.open() as reader:
        return reader.info, reader.report, list(reader)


def indices(source: Source) -> list[int]:
    return [frame.index for frame in read(source)[2]]


def mean_error(a, b) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b).mean())


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(30, SIZE_HW)[0]


@pytest.fixture(scope="module")
def video(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("video") / "shapes.mp4"
    return write_video(path, shapes, options={"bf": "3", "g": "12"})


# Decoding


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.mkv", "ffv1"), ("a.mkv", "libx264")],
)
def test_no_frame_is_lost(tmp_path, shapes, name, codec, threads):
    options = {"bf": "3"} if codec == "libx264" else {}
    path = write_video(tmp_path / name, shapes, codec=codec, options=options)
    info, report, frames = read(VideoFile(path, threads=threads))
    assert [frame.index for frame in frames] == list(range(len(shapes)))
    assert info.frame_count == report.frames == len(shapes)
    assert (info.size_hw, info.rate) == (SIZE_HW, 25)
    assert info.codec in codec.replace("libx264", "h264")
    assert report.corrupt_packets == 0
    for frame, truth in zip(frames, shapes, strict=True):
        assert mean_error(frame.rgb(), truth) < 12  # chroma is subsampled


def test_timestamps_are_the_containers(tmp_path, shapes):
    pts_ms = [0, 40, 55, 56, 200, 1000, 1001, 1500]
    path = write_video(tmp_path / "vfr.mp4", shapes[: len(pts_ms)], pts=pts_ms)
    _, _, frames = read(VideoFile(path))
    assert [frame.pts * frame.time_base * 1000 for frame in frames] == pts_ms
    assert [frame.pts_s for frame in frames] == [ms / 1000 for ms in pts_ms]


def test_reader_keeps_no_decoded_picture(video):
    with VideoFile(video).open() as reader:
        for frame in reader:
            references = sys.getrefcount(frame.view.picture)
            assert references <= 2  # the view's, and that of the call itself


# Geometry


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, shapes, degrees):
    truth = np.rot90(shapes[0], degrees // 90)
    path = write_video(tmp_path / "r.mp4", shapes[:1], pix_fmt="yuv444p", rotation=degrees)
    info, _, [frame] = read(VideoFile(path))
    assert info.rotation_deg == degrees
    assert info.size_hw == frame.size_hw == truth.shape[:2]
    assert mean_error(frame.rgb(), truth) < 3
    assert mean_error(frame.gray(), cv2.cvtColor(truth, cv2.COLOR_RGB2GRAY)) < 3
    half = truth.shape[0] // 2, truth.shape[1] // 2
    assert mean_error(frame.rgb(half), ArrayView(truth).rgb(half)) < 3
    assert frame.rgb(half).flags.c_contiguous


@pytest.mark.parametrize(
    ("aspect", "rotation", "size_hw"),
    [
        (Fraction(4, 3), 0, (48, 85)),
        (Fraction(1, 2), 0, (48, 32)),
        (Fraction(4, 3), 90, (85, 48)),
    ],
)
def test_sample_aspect_stretches_the_stored_width(tmp_path, shapes, aspect, rotation, size_hw):
    path = write_video(tmp_path / "sar.mp4", shapes[:1], sample_aspect=aspect, rotation=rotation)
    info, _, [frame] = read(VideoFile(path))
    assert (info.sample_aspect, info.size_hw) == (aspect, size_hw)
    assert frame.rgb().shape == (*size_hw, 3)
    stretched = ArrayView(shapes[0]).rgb((48, size_hw[rotation == 0]))
    assert mean_error(frame.rgb(), np.rot90(stretched, rotation // 90)) < 9


@pytest.mark.parametrize("size_hw", [(35, 53), (2, 2), (1, 1), (1, 7)])
@pytest.mark.parametrize("pix_fmt", ["bgr0", "yuv420p", "yuv444p", "yuv420p10le", "gray"])
def test_odd_sizes_and_formats(tmp_path, size_hw, pix_fmt):
    grey = np.full((*size_hw, 3), 90, np.uint8)
    path = write_video(tmp_path / "odd.mkv", [grey] * 3, codec="ffv1", pix_fmt=pix_fmt)
    _, _, frames = read(VideoFile(path))
    assert len(frames) == 3
    for wanted_hw in (size_hw, (1, 1), (7, 5), (70, 106)):
        np.testing.assert_allclose(frames[2].rgb(wanted_hw), np.full((*wanted_hw, 3), 90), atol=2)
        np.testing.assert_allclose(frames[2].gray(wanted_hw), np.full(wanted_hw, 90), atol=2)


def test_lossless_video_gives_the_exact_pixels(tmp_path):
    frames, _ = moving_shapes(3, (35, 53))
    path = write_video(tmp_path / "exact.mkv", frames, **LOSSLESS)
    for frame, truth in zip(read(VideoFile(path))[2], frames, strict=True):
        np.testing.assert_array_equal(frame.rgb(), truth)


# Colour, on pictures made by hand


def plain_view(pix_fmt: str, levels: tuple[int, ...], *, full: bool = False, space: int = 2):
    """A view of 16 x 16 pixels of one colour; `space`: 1 is BT.709, 2 unknown, 5 BT.601."""
    picture = VideoFrame(16, 16, pix_fmt)
    sample = np.uint16 if "10" in pix_fmt else np.uint8
    for plane, level in zip(picture.planes, levels, strict=True):
        plane.update(np.full(plane.buffer_size // sample().itemsize, level, sample).tobytes())
    picture.color_range = 2 if full else 1
    picture.colorspace = space
    return VideoView(picture, 0)


@pytest.mark.parametrize(
    ("view", "rgb", "gray"),
    [
        (plain_view("yuv420p", (235, 128, 128)), (255, 255, 255), 255),
        (plain_view("yuv420p", (16, 128, 128)), (0, 0, 0), 0),
        (plain_view("yuv420p", (235, 128, 128), full=True), (235, 235, 235), 235),
        (plain_view("yuv420p10le", (940, 512, 512)), (255, 255, 255), 255),
        (plain_view("gray", (77,), full=True), (77, 77, 77), 77),
        (plain_view("yuv444p", (100, 90, 200), space=5), (213, 54, 21), 98),
        (plain_view("yuv444p", (100, 90, 200), space=1), (227, 68, 18), 98),
    ],
)
def test_range_and_matrix_of_the_frame_are_used(view, rgb, gray):
    for size_hw in ((16, 16), (8, 8), (24, 40)):
        np.testing.assert_allclose(view.rgb(size_hw), np.full((*size_hw, 3), rgb), atol=2)
        np.testing.assert_allclose(view.gray(size_hw), np.full(size_hw, gray), atol=2)


def test_pixels_are_the_callers_own():
    picture = VideoFrame.from_ndarray(np.full((16, 16, 3), 7, np.uint8), format="rgb24")
    view = VideoView(picture, 0)
    view.rgb((16, 16))[:] = 99
    assert view.rgb((16, 16)).max() == 7


def test_extreme_growth_that_swscale_refuses():
    view = VideoView(VideoFrame.from_ndarray(np.full((1, 1, 3), 7, np.uint8), format="rgb24"), 0)
    assert view.rgb((16384, 1)).shape == (16384, 1, 3)
    assert (view.gray((1, 16384)) == 7).all()


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


# Bad files


@pytest.mark.parametrize("threads", [1, 4])
def test_corrupt_packets_are_counted_not_fatal(tmp_path, shapes, threads):
    path = write_video(tmp_path / "damaged.avi", shapes, codec="mjpeg", pix_fmt="yuvj420p")
    damage_packets(path, [5, 11, 12, 20, 21, 22, 23])
    _, report, frames = read(VideoFile(path, threads=threads))
    assert len(frames) == len(shapes) - 7
    assert report.corrupt_packets == 7
    assert len(report.messages) == 5
    assert all("Invalid data" in message for message in report.messages)


def test_damaged_frame_is_counted_and_kept(tmp_path, shapes):
    path = write_video(tmp_path / "damaged.mp4", shapes, options={"bf": "0"})
    content = bytearray(path.read_bytes())
    damage_middle(path, content, packet=10)
    _, report, frames = read(VideoFile(path))
    assert len(frames) == len(shapes)
    assert report.corrupt_packets == 1
    assert report.messages == ["at 0.400 s: the frame is damaged"]


def damage_middle(path: Path, content: bytearray, packet: int) -> None:
    """Invert the second half of a packet, so that its headers stay whole."""
    before = bytes(content)
    damage_packets(path, [packet])
    damaged = bytearray(path.read_bytes())
    changed = [i for i, (a, b) in enumerate(zip(before, damaged, strict=True)) if a != b]
    damaged[changed[0] : changed[len(changed) // 2]] = before[
        changed[0] : changed[len(changed) // 2]
    ]
    path.write_bytes(damaged)


def test_file_cut_in_the_data_gives_what_is_there(tmp_path, shapes):
    path = write_video(tmp_path / "cut.mkv", shapes, codec="ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 < len(read(VideoFile(path))[2]) < 25


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
    return write_video(folder / "huge.mkv", [np.zeros((2, 16400, 3), np.uint8)], **LOSSLESS)


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


def test_missing_file_is_found_missing_on_opening(tmp_path):
    with pytest.raises(SourceNotFoundError):
        read(VideoFile(tmp_path / "gone.mp4"))


# Images


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
    assert indices(source) == expected
    assert read(source)[0].frame_count == len(expected)


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
    assert report.messages == ["f2.png is no image that can be decoded"]


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
    assert indices(source) == [3, 5, 7]


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
