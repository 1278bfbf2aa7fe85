"""Video files: every frame once, with its own number, its own time and the displayed pixels."""

from __future__ import annotations

import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from maskstream.pipeline.sources import ArrayView, VideoFile
from maskstream.pipeline.sources.video_view import VideoView
from tests.support.media import damage_packets, moving_shapes, read, write_video

SIZE_HW = (48, 64)


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


def test_reader_keeps_no_decoded_image(video):
    with VideoFile(video).open() as reader:
        frames = iter(reader)
        next(frames)  # its side data, once looked at, refer to it until the next collection
        for frame in frames:
            references = sys.getrefcount(frame.view.image)
            assert references <= 2  # the view's, and that of the call itself


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
    damage_packets(path, [10], intact=0.5)
    _, report, frames = read(VideoFile(path))
    assert len(frames) == len(shapes)
    assert report.corrupt_packets == 1
    assert report.messages == ["at 0.400 s: the frame is damaged"]


def test_file_cut_in_the_data_gives_what_is_there(tmp_path, shapes):
    path = write_video(tmp_path / "cut.mkv", shapes, codec="ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 < len(read(VideoFile(path))[2]) < 25


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
    gray = np.full((*size_hw, 3), 90, np.uint8)
    path = write_video(tmp_path / "odd.mkv", [gray] * 3, codec="ffv1", pix_fmt=pix_fmt)
    _, _, frames = read(VideoFile(path))
    assert len(frames) == 3
    for wanted_hw in (size_hw, (1, 1), (7, 5), (70, 106)):
        np.testing.assert_allclose(frames[2].rgb(wanted_hw), np.full((*wanted_hw, 3), 90), atol=2)
        np.testing.assert_allclose(frames[2].gray(wanted_hw), np.full(wanted_hw, 90), atol=2)


def test_lossless_video_gives_the_exact_pixels(tmp_path):
    frames, _ = moving_shapes(3, (35, 53))
    path = write_video(tmp_path / "exact.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    for frame, truth in zip(read(VideoFile(path))[2], frames, strict=True):
        np.testing.assert_array_equal(frame.rgb(), truth)


# Color, on pictures made by hand


def plain_view(pix_fmt: str, levels: tuple[int, ...], *, full: bool = False, space: int = 2):
    """A view of 16 x 16 pixels of one color; `space`: 1 is BT.709, 2 unknown, 5 BT.601."""
    image = VideoFrame(16, 16, pix_fmt)
    sample = np.uint16 if "10" in pix_fmt else np.uint8
    for plane, level in zip(image.planes, levels, strict=True):
        plane.update(np.full(plane.buffer_size // sample().itemsize, level, sample).tobytes())
    image.color_range = 2 if full else 1
    image.colorspace = space
    return VideoView(image)


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
    image = VideoFrame.from_ndarray(np.full((16, 16, 3), 7, np.uint8), format="rgb24")
    view = VideoView(image)
    view.rgb((16, 16))[:] = 99
    assert view.rgb((16, 16)).max() == 7


def test_extreme_growth_that_swscale_refuses():
    view = VideoView(VideoFrame.from_ndarray(np.full((1, 1, 3), 7, np.uint8), format="rgb24"))
    assert view.rgb((16384, 1)).shape == (16384, 1, 3)
    assert (view.gray((1, 16384)) == 7).all()
