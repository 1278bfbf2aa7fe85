"""Cameras that send JPEG images in a row, with boundaries of the standard and others."""

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources.live import InputOptions, open_live
from tests.support.camera_server import camera_server
from tests.support.clock import FakeClock
from tests.support.media import read

LEVELS = [20, 60, 100, 140, 180]
IMAGES = [
    cv2.imencode(".jpg", np.full((36, 64, 3), level, np.uint8))[1].tobytes() for level in LEVELS
]


def parts(boundary=b"--frame\r\n", *, end=b"\r\n", length=True):
    def header(image):
        stated = b"Content-Length: %d\r\n" % len(image) if length else b""
        return boundary + b"Content-Type: image/jpeg\r\n" + stated + b"\r\n"

    return b"".join(header(image) + image + end for image in IMAGES)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(parts(), id="standard"),
        pytest.param(parts().removeprefix(b"--frame\r\n"), id="no-first-boundary"),
        pytest.param(parts(end=b""), id="no-newline"),
        pytest.param(parts(end=b"").removeprefix(b"--frame\r\n"), id="neither"),
        pytest.param(parts(end=b"", length=False), id="no-newline-no-length"),
        pytest.param(parts(boundary=b"frame\r\n"), id="no-dashes"),
        pytest.param(b"\r\n" + parts(), id="newline-first"),
        pytest.param(parts().replace(b"\r\n", b"\n"), id="line-feeds"),
        pytest.param(b"".join(IMAGES), id="images-only"),
    ],
)
def test_images_in_a_row_play_whatever_their_boundaries(body):
    with camera_server(200, body, "multipart/x-mixed-replace; boundary=frame") as server:
        source = open_live(f"http://{server.host}/video", clock=FakeClock()).source
        info, _, frames = read(source)
    assert [int(frame.rgb()[0, 0, 0]) for frame in frames] == pytest.approx(LEVELS, abs=2)
    assert info.clock == "capture"  # FFmpeg's times would come from an assumed rate
    assert {frame.pts_s for frame in frames} == {5000.0}


@pytest.mark.parametrize("kind", ["text/html", "multipart/x-mixed-replace; boundary=frame"])
@pytest.mark.parametrize("body", [b"<html>Log in</html>" * 500, bytes(5000)])
def test_what_is_no_video_is_a_sentence_about_the_stream(kind, body):
    with camera_server(200, body, kind) as server:
        target = f"http://{server.host}/video"
        with pytest.raises(
            UnreadableSourceError, match=f"{target}.*(cannot be opened|holds no frame)"
        ) as caught:
            read(open_live(target, InputOptions(stall_s=5)).source)
    assert "file" not in str(caught.value)


def test_a_stream_without_a_whole_frame_is_no_damaged_file():
    said = pytest.raises(UnreadableSourceError, match="stream is damaged")
    with camera_server(200, IMAGES[0][:400], "image/jpeg") as server, said as caught:
        read(open_live(f"http://{server.host}/video", InputOptions(stall_s=5)).source)
    assert "file" not in str(caught.value)
