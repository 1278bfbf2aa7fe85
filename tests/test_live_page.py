"""The camera page: live results, clicks while they come, recordings, and a browser's camera."""

from __future__ import annotations

import io
import socket
import threading
import zipfile

import cv2
import numpy as np
import pytest

from pipeline.config import PipelineConfig, ThreadsConfig
from pipeline.errors import PageError, PromptError, SourceError, StoreError
from pipeline.store import MaskStore
from tests.browser import Tab, browser, centre, iou, served, why_not
from tests.media import moving_shapes, read, write_video
from ui.cameras import PushedPictures, StreamSource, is_address, is_device
from ui.examples import SHAPES_HW, shapes_frames
from ui.live import ABANDONED_S, LiveRun
from ui.live_rooms import MOST_LIVE, LiveRooms
from ui.workspace import Limits, Workspace

CONFIG = PipelineConfig(threads=ThreadsConfig(inference=1))
COUNT = 12
LONG_S = 120.0


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(COUNT, (120, 176), shapes=2, seed=3)


class Watched:
    """A run on pictures that the test sends, one by one."""

    def __init__(self, folder, frames) -> None:
        self.now_s = 0.0
        self.frames = frames
        self.camera = PushedPictures(monotonic=lambda: self.now_s)
        self.run = LiveRun(
            CONFIG, self.camera, folder, on_stop=self.camera.close, monotonic=lambda: self.now_s
        )

    def show(self, number: int):
        """Send a picture; gives the result."""
        bgr = cv2.cvtColor(self.frames[number], cv2.COLOR_RGB2BGR)
        self.now_s += 0.04
        self.camera.push(cv2.imencode(".png", bgr)[1].tobytes(), float(number))
        shown = self.run.newest(number - 1, LONG_S)
        assert shown is not None, self.run.message
        assert shown.frame.index == number
        return shown.result


@pytest.fixture
def watched(tmp_path, shapes):
    found = Watched(tmp_path, shapes[0])
    yield found
    found.run.stop()
    found.run.wait(LONG_S)
    assert not found.run.active


def test_objects_are_clicked_while_it_runs_and_recorded(watched, shapes):
    _, truth = shapes
    run = watched.run
    assert watched.show(0).objects == ()
    with pytest.raises(PromptError, match="on the object first"):
        run.click(3, 3, 0, None)
    with pytest.raises(PromptError, match="outside the picture"):
        run.click(500, 3, 1, None)
    first = run.click(*centre(truth[1], 1), 1, None)
    second = run.click(*centre(truth[1], 2), 1, None)
    assert (first, second) == (1, 2)
    result = watched.show(1)
    assert iou(result.mask(1), truth[1] == 1) > 0.6
    assert iou(result.mask(2), truth[1] == 2) > 0.6
    run.record(on=True)
    recorded = {number: watched.show(number).labels for number in (2, 3, 4)}
    run.remove(2)
    recorded[5] = watched.show(5).labels
    assert not (recorded[5] == 2).any()
    run.record(on=False)
    watched.show(6)
    told = run.to_json()
    assert (told["recorded"], told["recording"], told["dropped"]) == (4, False, 0)
    assert told["fps"] == 25.0
    store = MaskStore(run.recording)
    assert store.complete
    assert store.indices.tolist() == list(recorded)
    assert all(np.array_equal(found.labels, recorded[found.index]) for found in store)


def test_a_recording_is_kept_when_the_camera_ends(watched):
    watched.show(0)
    watched.run.record(on=True)
    watched.show(1)
    watched.run.stop()
    watched.run.wait(LONG_S)
    assert watched.run.status == "ended"
    assert len(MaskStore(watched.run.recording)) == 1
    with pytest.raises(StoreError, match="no picture"):
        watched.run.record(on=True)
    with pytest.raises(PromptError, match="has ended"):
        watched.run.click(1, 1, 1, None)


def test_a_run_that_nobody_looks_at_ends(watched):
    watched.show(0)
    watched.now_s += ABANDONED_S + 1
    bgr = np.zeros((120, 176, 3), np.uint8)
    watched.camera.push(cv2.imencode(".png", bgr)[1].tobytes(), 0.0)
    watched.run.wait(LONG_S)
    assert watched.run.status == "ended"


def test_a_picture_that_is_none_is_a_sentence():
    with pytest.raises(SourceError, match="no picture of a camera"):
        PushedPictures().push(b"GIF?", 0.0)


def test_a_camera_without_a_picture_is_a_sentence(tmp_path):
    camera = PushedPictures()
    run = LiveRun(CONFIG, camera, tmp_path, on_stop=camera.close)
    run.stop()
    run.wait(LONG_S)
    assert (run.status, run.message) == ("failed", "The browser sent no picture of its camera.")


NAMES = [
    ("rtsp://camera/1", True, False),
    ("tcp://127.0.0.1:9000", True, False),
    ("/dev/video0", False, True),
    ("0", False, True),
    ("clip.mp4", False, False),
    ("file:///etc/passwd", False, False),
]


@pytest.mark.parametrize(("name", "address", "device"), NAMES)
def test_what_a_name_means(name, address, device):
    assert (is_address(name), is_device(name)) == (address, device)


def test_a_stream_on_loopback_and_a_file_are_watched(tmp_path, shapes):
    long = np.concatenate(
        [shapes[0]] * 20
    )  # FFmpeg looks at a stream's first frames and drops them
    clip = write_video(tmp_path / "clip.ts", long, rate=400, options={"g": "12"})
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def send() -> None:
            with listening.accept()[0] as taken:
                taken.sendall(clip.read_bytes())

        sender = threading.Thread(target=send)
        sender.start()
        info, _, frames = read(StreamSource(f"tcp://127.0.0.1:{listening.getsockname()[1]}"))
        sender.join()
    assert info.size_hw == shapes[1].shape[1:]
    assert 0 < len(frames) <= len(long)
    assert len(read(StreamSource(str(clip)))[2]) == len(long)


def test_a_stream_that_is_not_there_is_a_sentence():
    with pytest.raises(SourceError, match="check the address"):
        read(StreamSource("tcp://127.0.0.1:1"))


def test_cameras_of_the_server_are_limited(tmp_path):
    place = Workspace(tmp_path / "s", CONFIG, Limits())
    rooms = LiveRooms(place)
    with pytest.raises(PageError, match="switched off"):
        rooms.begin("rtsp://camera/1")
    for _ in range(MOST_LIVE):
        rooms.begin(None)
    with pytest.raises(PageError, match="are watched on this server"):
        rooms.begin(None)
    with pytest.raises(PageError, match="not watched any more"):
        rooms.find("nobody")
    rooms.close()
    allowed = LiveRooms(Workspace(tmp_path / "t", CONFIG, Limits(roots=(tmp_path,))))
    with pytest.raises(PageError, match="Only files in"):
        allowed.begin("/etc/passwd")


needs_browser = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


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


@needs_browser
@pytest.mark.parametrize("own", [True, False], ids=["browser-camera", "server-file"])
def test_the_camera_page(server, camera_browser, clip, own):
    truth = next(masks for _, masks in shapes_frames())
    with Tab(camera_browser, server.url, permissions=["camera"]) as tab:
        tab.open("camera")
        if own:
            tab.page.click("#own")
        else:
            tab.page.fill("#address", str(clip))
            tab.page.click("#address-form button")
        tab.page.wait_for_function("window.camera?.shown > 3", timeout=60_000)
        assert tab.run("camera.size") == f"{SHAPES_HW[1]},{SHAPES_HW[0]}"
        x, y = tab.run("([x, y]) => camera.view.toScreen(x + .5, y + .5)", list(centre(truth, 1)))
        tab.page.mouse.click(x, y)
        tab.page.wait_for_selector(".object[data-object='1']")
        tab.page.wait_for_function("camera.view.masks.labels.includes(1)")
        width, height, values = tab.run(
            "() => { const m = camera.view.masks; return [m.width, m.height, [...m.labels]] }"
        )
        assert iou(np.reshape(values, (height, width)) == 1, truth == 1) > 0.6
        assert "ms" in tab.page.inner_text("#latency")
        assert float(tab.page.inner_text("#fps")) > 0
        tab.page.click("#record")
        tab.page.wait_for_function("camera.told.recorded > 3")
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


@needs_browser
def test_a_camera_that_cannot_be_had_is_a_sentence(server, camera_browser):
    with Tab(camera_browser, server.url) as tab:
        tab.open("camera")
        tab.page.fill("#address", "tcp://127.0.0.1:1")
        tab.page.click("#address-form button")
        tab.wait_toast("check the address")
    with Tab(camera_browser, server.url) as tab:
        tab.page.add_init_script(
            "navigator.mediaDevices.getUserMedia = () => "
            "Promise.reject(new DOMException('no', 'NotFoundError'))"
        )
        tab.open("camera")
        tab.page.click("#own")
        assert "has no camera" in tab.toast()
