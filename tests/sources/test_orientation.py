"""All eight orientations of a display matrix, as FFmpeg's players show them."""

from __future__ import annotations

import av
import numpy as np
import pytest

from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.sources.orientation import Orientation
from tests.exports.test_export_time import masks_of
from tests.support.media import moving_shapes, read

SIZE_HW = 48, 64
# Degrees counterclockwise and mirrors, and FFmpeg's filters of `-autorotate` for their matrix.
CASES = [(0, "", ""), (90, "", "cclock"), (180, "", "hflip,vflip"), (270, "", "clock")] + [
    (0, "h", "hflip"),
    (0, "v", "vflip"),
    (90, "h", None),
    (270, "h", None),
]


def write(path, frames, degrees, mirror):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1" if path.suffix == ".mkv" else "libx264rgb", rate=25)
        stream.height, stream.width = SIZE_HW
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "rgb24"
        stream.codec_context.options = {"qp": "0"}
        stream.set_display_rotation(degrees, hflip=mirror == "h", vflip=mirror == "v")
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def matrix_of(path) -> np.ndarray:
    """The display matrix as documented: x' = a x + c y, y' = b x + d y."""
    from av.sidedata.sidedata import Type

    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        stated = picture.side_data.get(Type.DISPLAYMATRIX)
    flat = np.frombuffer(bytes(stated), np.int32).reshape(3, 3) if stated else np.eye(3) * 65536
    return flat[:2, :2].T / 65536


@pytest.mark.parametrize(("degrees", "mirror", "filters"), CASES)
@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
def test_pictures_are_shown_as_ffmpeg_shows_them(tmp_path, degrees, mirror, filters, suffix):
    frames = moving_shapes(3, SIZE_HW)[0]
    path = write(tmp_path / f"clip{suffix}", frames, degrees, mirror)
    info, _, found = read(VideoFile(path))
    turned = np.rot90(frames[0], degrees // 90)
    expected = {"h": turned[:, ::-1], "v": turned[::-1], "": turned}[mirror]
    assert info.size_hw == expected.shape[:2]
    assert np.array_equal(found[0].rgb(), expected)
    assert found[0].gray().shape == info.size_hw
    assert info.mirrored == bool(mirror)
    again = np.rot90(frames[0], info.rotation_deg // 90)
    assert np.array_equal(again[:, ::-1] if info.mirrored else again, expected)

    # Each stored pixel comes to the place that the matrix names.
    matrix = matrix_of(path)
    corners = np.array([[0, 0], [SIZE_HW[1] - 1, 0], [0, SIZE_HW[0] - 1]])
    places = corners @ matrix.T
    places -= (np.array([[0, 0], [63, 0], [0, 47], [63, 47]]) @ matrix.T).min(axis=0)
    for (x, y), (to_x, to_y) in zip(corners, places.round().astype(int), strict=True):
        assert np.array_equal(found[0].rgb()[to_y, to_x], frames[0][y, x])
    if filters is not None:
        assert np.array_equal(found[0].rgb(), through(frames[0], filters))


def through(pixels: np.ndarray, filters: str) -> np.ndarray:
    """An image through FFmpeg's filters."""
    graph = av.filter.Graph()
    height, width, _ = pixels.shape
    last = graph.add_buffer(width=width, height=height, format="rgb24", time_base="1/25")
    for name in filter(None, filters.split(",")):
        following = graph.add(name) if "flip" in name else graph.add("transpose", f"dir={name}")
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
    return graph.pull().to_ndarray()


@pytest.mark.parametrize(("degrees", "mirror", "_"), CASES)
def test_exports_are_oriented_too(tmp_path, degrees, mirror, _):
    frames = moving_shapes(3, SIZE_HW)[0]
    path = write(tmp_path / "clip.mov", frames, degrees, mirror)
    store = masks_of(path)
    shown = read(VideoFile(path))[2]
    for form, name in [("ffv1", "o.mkv"), ("green", "o.mp4"), ("prores", "o.mov")]:
        choice = ExportChoice(form)
        export_store(store, tmp_path / name, choice)
        made = read(VideoFile(tmp_path / name))[2]
        assert made[0].size_hw == shown[0].size_hw
        if form != "green":
            off = np.abs(made[1].rgb().astype(int) - shown[1].rgb())
            assert off.mean() < 4, (form, off.mean())


def test_orientations_undo_what_was_done():
    image = np.arange(12).reshape(3, 4).astype(np.uint8)
    made = {
        Orientation(swap, flip_x, flip_y).apply(image).tobytes()
        for swap in (False, True)
        for flip_x in (False, True)
        for flip_y in (False, True)
    }
    assert len(made) == 8
