"""Overlay video, contact sheet, and the drawing itself."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.rendering.contact_sheet import ContactSheet
from maskstream.pipeline.rendering.draw import draw, object_color, scaled
from maskstream.pipeline.rendering.overlay import OverlayVideo
from maskstream.pipeline.sources import ArrayView
from maskstream.pipeline.types import Frame, FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState


def shown(index: int, pts: int | None, size=(48, 64), state=TrackState.TRACKED):
    """A frame of gray with one object in the middle of it."""
    labels = np.zeros(size, np.uint16)
    labels[12:36, 16:48] = 3
    found = ObjectResult(3, (16, 12, 48, 36), 0.9, state, 24 * 32)
    view = ArrayView(np.full((*size, 3), 128, np.uint8))
    base = Fraction(1, 1000)
    return Frame(index, pts, base, size, view), FrameResult(
        index, pts, base, False, labels, (found,)
    )


def test_mask_is_colored_and_the_rest_untouched():
    frame, result = shown(0, 0, (480, 640))
    result.labels[120:360, 160:480] = 3
    image = draw(frame.rgb(), result)
    middle = image[240, 320].astype(int)
    expected = 0.55 * 128 + 0.45 * np.array(object_color(3))
    assert np.abs(middle - expected).max() <= 1
    assert (image[470, 630] == 128).all()
    assert frame.rgb()[240, 320].tolist() == [128] * 3


@pytest.mark.parametrize("state", [TrackState.LOST, TrackState.TENTATIVE, TrackState.REMOVED])
def test_withheld_objects_are_not_drawn(state):
    frame, result = shown(0, 0, state=state)
    assert (draw(frame.rgb(), result) == 128).all()


def test_colors_of_neighboring_ids_differ():
    colors = np.array([object_color(i) for i in range(1, 30)], float)
    steps = np.linalg.norm(colors[1:] - colors[:-1], axis=1)
    assert steps.min() > 60


def test_scaled_result_keeps_its_objects():
    _, result = shown(0, 0)
    half = scaled(result, (24, 32))
    assert half.labels.shape == (24, 32)
    assert half.objects[0].box_xyxy == (8, 6, 24, 18)


@pytest.mark.parametrize("size", [(48, 64), (35, 53), (1, 1)])
@pytest.mark.parametrize("times", [[0, 40, 55, 200, 1000], [400, 440, 455]])
def test_overlay_keeps_variable_timestamps(tmp_path, size, times):
    info = SourceInfo("x", size, Fraction(1, 1000), Fraction(25))
    video = OverlayVideo(tmp_path / "o.mp4", info)
    for i, pts in enumerate(times):
        video.write(*shown(i, pts, size))
    assert not (tmp_path / "o.mp4").exists()
    video.close(complete=True)
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(video=0))
        shown_ms = [round(1000 * f.pts * f.time_base) for f in frames]
        assert shown_ms == [time - times[0] for time in times]  # from 0
        assert (frames[0].width, frames[0].height) == tuple(max(2, n - n % 2) for n in size[::-1])
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.parametrize("time_base", [Fraction(1), Fraction(1, 1000), Fraction(1, 90000)])
def test_overlay_counts_where_there_are_no_timestamps(tmp_path, time_base):
    video = OverlayVideo(tmp_path / "o.mp4", SourceInfo("x", (48, 64), time_base))
    for i in range(3):
        video.write(*shown(i, None))
    video.close(complete=True)
    with av.open(str(tmp_path / "o.mp4")) as container:
        seconds = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert seconds == pytest.approx([0, 0.04, 0.08], abs=1e-3)


@pytest.mark.parametrize("count", [1, 5, 12, 23, 1000])
def test_contact_sheet_shows_frames_from_all_of_the_stream(tmp_path, count):
    sheet = ContactSheet(tmp_path / "sheet.png")
    for i in range(count):
        sheet.write(*shown(i, 40 * i))
        assert len(sheet._kept) < 24
    sheet.close(complete=True)
    image = cv2.imread(str(tmp_path / "sheet.png"))
    assert image.shape[1] <= 1920


@pytest.mark.parametrize("sink", [OverlayVideo, ContactSheet])
def test_place_that_cannot_be_written_is_a_sentence(tmp_path, sink):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "out.mp4"
    info = SourceInfo("x", (48, 64), Fraction(1, 1000))
    with pytest.raises(StoreError, match="cannot be written"):
        made = OverlayVideo(path, info) if sink is OverlayVideo else ContactSheet(path)
        made.write(*shown(0, 0))
        made.close(complete=True)


def test_nothing_written_leaves_no_file(tmp_path):
    OverlayVideo(tmp_path / "o.mp4", SourceInfo("x", (8, 8), Fraction(1, 25))).close(complete=False)
    ContactSheet(tmp_path / "o.png").close(complete=False)
    assert list(tmp_path.iterdir()) == []
