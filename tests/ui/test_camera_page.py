"""The camera page in a real browser: its own camera, one of the server, and none."""

from __future__ import annotations

import io
import zipfile

import cv2
import numpy as np
import pytest

from maskstream.pipeline.lab.bench.loopback import LoopbackCamera
from maskstream.ui.server.examples import SHAPES_HW, shapes_frames
from tests.support.browser import Tab, browser, center, iou, served, why_not
from tests.support.media import write_video

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", still(), rate=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip):
    with served(tmp_path_factory.mktemp("sessions"), "--allow", clip.parent) as found:
        yield found


def still() -> list[np.ndarray]:
    """The drawn example's first frame for a while: what is clicked is still there."""
    return [next(shapes_frames())[0]] * 400


@pytest.fixture(scope="module")
def camera_browser(tmp_path_factory):
    """Chromium with a camera that shows the drawn example."""
    file = tmp_path_factory.mktemp("camera") / "shapes.mjpeg"
    frame = cv2.cvtColor(still()[0], cv2.COLOR_RGB2BGR)
    file.write_bytes(2 * cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browser(*flags, f"--use-file-for-fake-video-capture={file}") as found:
        yield found


@pytest.mark.parametrize("own", [True, False], ids=["browser-camera", "server-file"])
def test_the_camera_page(server, camera_browser, clip, own):
    truth = next(masks for _, masks in shapes_frames())
    with Tab(camera_browser, server.url, watched=False, permissions=["camera"]) as tab:
        tab.open("camera")
        if own:
            tab.page.click("#own")
        else:
            tab.page.fill("#address", str(clip))
            tab.page.click("#address-form button")
        tab.page.wait_for_function("window.camera?.shown > 3", timeout=60_000)
        assert tab.run("camera.size") == f"{SHAPES_HW[1]},{SHAPES_HW[0]}"
        x, y = tab.run("([x, y]) => camera.view.toScreen(x + .5, y + .5)", list(center(truth, 1)))
        tab.page.mouse.click(x, y)
        tab.page.mouse.click(x + 2, y)  # refines what the first one begins
        tab.page.wait_for_selector(".object[data-object='1'][aria-current]")
        tab.page.wait_for_function("camera.view.masks.labels.includes(1)")
        tab.run("camera.pending")
        assert tab.page.locator(".object").count() == 1
        width, height, values = tab.run(
            "() => { const m = camera.view.masks; return [m.width, m.height, [...m.labels]] }"
        )
        assert iou(np.reshape(values, (height, width)) == 1, truth == 1) > 0.6
        assert "ms" in tab.page.inner_text("#latency")
        assert float(tab.page.inner_text("#fps")) > 0
        assert tab.page.inner_text("#governor").split(" / ")[0].isdigit()
        tab.page.click("#record")
        tab.page.wait_for_function("camera.status.recorded > 3")
        tab.page.click("#record")
        tab.page.wait_for_selector("#recording:visible")
        with tab.page.expect_download() as got:
            tab.page.click("#recording")
        packed = zipfile.ZipFile(io.BytesIO(got.value.path().read_bytes()))
        assert any(name.endswith("zarr.json") for name in packed.namelist())
        tab.page.click("[aria-label='Remove object 1']")
        tab.page.wait_for_function("!camera.view.masks.labels.includes(1)")
        tab.page.click("#stop")
        tab.wait_toast("camera has ended")


def test_a_camera_that_is_away_is_said(server, camera_browser):
    with Tab(camera_browser, server.url) as tab:
        with LoopbackCamera(still()[:30]) as camera:
            tab.open("camera")
            tab.page.fill("#address", camera.url)
            tab.page.click("#address-form button")
            tab.page.wait_for_function("window.camera?.shown > 3", timeout=60_000)
            assert not tab.page.inner_text("#trouble")
        tab.page.wait_for_function("document.querySelector('#trouble').textContent")
        assert "The camera is disconnected" in tab.page.inner_text("#trouble")
        tab.page.click("#stop")
        tab.wait_toast("camera has ended")


def test_a_camera_that_cannot_be_had_is_a_sentence(server, camera_browser):
    with Tab(camera_browser, server.url) as tab:
        tab.open("camera")
        tab.page.fill("#address", "tcp://127.0.0.1:1")
        tab.page.click("#address-form button")
        tab.wait_toast("cannot be opened")
    with Tab(camera_browser, server.url) as tab:
        tab.page.add_init_script(
            "navigator.mediaDevices.getUserMedia = () => "
            "Promise.reject(new DOMException('no', 'NotFoundError'))"
        )
        tab.open("camera")
        tab.page.click("#own")
        assert "has no camera" in tab.toast()
