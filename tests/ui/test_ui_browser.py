"""The page in a real browser: from opening to the exported file, and what people do wrong."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from maskstream.pipeline.sources import VideoFile
from maskstream.ui.server.examples import SHAPES_COUNT, shapes_frames
from tests.support.browser import Tab, center, iou, served, why_not
from tests.support.media import moving_shapes, read, write_audio, write_images, write_video

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of clips of every shape."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "wide.mp4", moving_shapes(6, (90, 160), seed=1)[0])
    write_video(folder / "portrait.mp4", moving_shapes(6, (160, 90), seed=1)[0])
    write_video(folder / "rotated.mp4", moving_shapes(6, (90, 160), seed=1)[0], rotation=90)
    write_video(folder / "tall.mp4", moving_shapes(6, (320, 48), seed=1)[0])
    write_audio(folder / "sound.mp4")
    write_images(folder / "shot", moving_shapes(6, (90, 160), seed=1)[0], start=1001)
    (folder / "text.mp4").write_text("no video at all")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, clips):
    sessions = tmp_path_factory.mktemp("sessions")
    with served(sessions, "--allow", clips, "--upload-mb", 1, "--private-urls") as found:
        yield found


def test_from_opening_to_the_exported_file_and_on_after_a_reload(server, chromium, tmp_path):
    truth = [masks for _, masks in shapes_frames()]
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        at = center(truth[0], 1)
        plain = tab.pixel(*at)
        tab.click(*at)
        labels = tab.labels()
        assert labels.shape == truth[0].shape
        assert labels[at[1], at[0]] == 1
        assert iou(labels == 1, truth[0] == 1) > 0.8
        assert np.abs(np.subtract(tab.pixel(*at), plain)).max() > 20  # it is seen, too
        before = labels.copy()

        tab.click(at[0] + 20, at[1], button="right")
        assert [c[2] for c in tab.run("page.state.objects[0].anchors[0].clicks")] == [1, 0]
        tab.page.keyboard.press("Control+z")
        tab.settle()
        assert np.array_equal(tab.labels(), before)

        tab.page.keyboard.press("n")
        tab.click(*center(truth[0], 2))
        assert tab.run("page.state.objects.length") == 2
        tab.track()
        store = server.store(tab.token)
        assert len(store) == SHAPES_COUNT
        for frame in (0, 17, SHAPES_COUNT - 1):
            tab.seek(frame)
            assert np.array_equal(tab.labels(), store.frame(frame).labels), frame
            assert iou(tab.labels() == 1, truth[frame] == 1) > 0.8, frame

        tab.seek(30)  # a correction of the second object
        tab.run("() => page.select(2)")
        tab.click(*center(truth[30], 2))
        assert tab.run("page.state.stale.map(s => [s.object, s.first, s.last])") == [
            [2, 0, 29],
            [2, 30, SHAPES_COUNT - 1],
        ]
        tab.page.click("#track")
        tab.page.wait_for_function("page.running")
        tab.page.goto("about:blank")  # a closed tab does not end tracking
        tab.page.go_back()
        tab.wait_shown()
        tab.wait_tracked()
        corrected = server.store(tab.token)
        assert corrected.path != store.path
        for row in range(0, SHAPES_COUNT, 5):
            assert np.array_equal(corrected.mask(1, row), store.mask(1, row))

        tab.page.click("#export")
        exported = zipfile.ZipFile(tab.exported("png"))
        name = next(n for n in exported.namelist() if "000017" in n)
        label_map = cv2.imdecode(np.frombuffer(exported.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label_map, corrected.frame(17).labels)
        tab.page.keyboard.press("Escape")

        tab.seek(12)
        kept = tab.labels()
        tab.page.reload()
        tab.wait_shown()
        assert tab.run("page.frame") == 12
        assert np.array_equal(tab.labels(), kept)
        tab.page.keyboard.press("Control+z")
        tab.settle()
        assert tab.run("page.state.store") == store.path.name


SIZES = [(1280, 800), (834, 1112), (1024, 600)]


@pytest.mark.parametrize("scale", [1, 2])
def test_clicks_mean_the_pixel_they_hit(server, chromium, clips, scale):
    """At every size of the window, scale of the screen, zoom, aspect and rotation."""
    with Tab(chromium, server.url, device_scale_factor=scale) as tab:
        for name in ("wide", "portrait", "rotated", "tall"):
            token = server.begin(clips / f"{name}.mp4")
            width, height = (server.state(token)[side] for side in ("width", "height"))
            points = [(0, 0), (width - 1, height - 1), (width // 3, height // 2), (width - 2, 1)]
            tab.open(f"?s={token}")
            tab.run("() => { page.view.on.click = at => hits.push([at.x, at.y]) }")
            for size in SIZES[:: 3 - scale]:
                tab.page.set_viewport_size({"width": size[0], "height": size[1]})
                tab.run("() => { window.hits = []; page.view.fit() }")
                for x, y in points:
                    tab.page.mouse.click(*tab.screen(x, y))
                tab.page.mouse.move(*tab.screen(width // 2, height // 2))
                tab.page.mouse.wheel(0, -900)
                tab.page.wait_for_function("page.view.zoom > 2")
                middle = (width // 2, height // 2)
                tab.page.mouse.click(*tab.screen(*middle))
                hits = [tuple(hit) for hit in tab.run("hits")]
                assert hits == [*points, middle], (name, size)


@pytest.mark.parametrize(("name", "frame"), [("portrait", 0), ("rotated", 3), ("tall", 5)])
def test_the_mask_lies_where_the_click_was(server, chromium, clips, name, frame):
    with Tab(chromium, server.url, (900, 700)) as tab:
        tab.open(f"?s={server.begin(clips / f'{name}.mp4')}")
        tab.seek(frame)
        rgb = read(VideoFile(clips / f"{name}.mp4"))[2][frame].rgb().astype(int)
        vivid = rgb.max(2) - rgb.min(2)  # shapes are, the background is not
        _, _, _, (x, y) = cv2.minMaxLoc(cv2.blur(vivid.astype(np.float32), (9, 9)))
        tab.click(x, y)
        labels = tab.labels()
        assert labels.shape == rgb.shape[:2]
        assert labels[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].any()


def test_tools_lists_and_shortcuts(server, chromium):
    truth = next(masks for _, masks in shapes_frames())
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        tab.page.keyboard.press("b")
        rows, columns = np.nonzero(truth == 2)
        tab.drag((columns.min() - 2, rows.min() - 2), (columns.max() + 2, rows.max() + 2))
        assert iou(tab.labels() == 1, truth == 2) > 0.8
        tab.page.keyboard.press("e")
        x, y = center(truth, 2)
        tab.drag((x - 10, y), (x + 10, y))
        assert tab.labels()[y, x] == 0
        tab.page.keyboard.press("p")
        tab.drag((x - 10, y), (x + 10, y))
        assert tab.labels()[y, x] == 1
        tab.page.keyboard.press("a")

        tab.page.keyboard.press("f")
        tab.page.wait_for_function("page.view.proposals")
        hit = center(truth, 3)
        tab.click(*hit)
        assert tab.run("page.state.objects.length") == 2
        assert tab.labels()[hit[1], hit[0]] == 2
        assert tab.run("page.state.objects[1].anchors[0].via") == "proposal"
        tab.page.keyboard.press("Escape")

        row = tab.page.locator(".object").nth(1)
        row.click()
        tab.page.keyboard.press("F2")
        name = row.locator(".name")
        name.fill("Sun")
        name.press("Enter")
        tab.settle()
        assert tab.run("page.state.objects[1].name") == "Sun"
        tab.page.click(".object >> nth=1 >> [aria-label^=Lock]")
        tab.settle()
        tab.click(*hit)
        assert "locked" in tab.toast()
        tab.page.click(".object >> nth=1 >> [aria-label=Unlock]")
        tab.page.click(".object >> nth=0 >> [aria-label=Hide]")
        tab.settle()
        assert tab.run("page.view.style.visible.size") == 1
        tab.page.click(".object >> nth=0 >> [aria-label=Delete]")
        tab.settle()
        assert tab.run("page.state.objects.map(o => o.name)") == ["Sun"]
        for _ in range(3):
            tab.page.keyboard.press("Control+z")
        tab.settle()
        assert tab.run("page.state.objects.length") == 2

        tab.run("() => document.activeElement.blur()")
        tab.page.keyboard.press("ArrowRight")
        tab.page.keyboard.press("Shift+ArrowRight")
        tab.page.wait_for_function("page.shownFrame === 11")
        tab.page.keyboard.press("i")
        tab.settle()
        assert tab.run("[page.state.first, page.state.last]") == [11, SHAPES_COUNT - 1]
        tab.page.keyboard.press("c")  # nothing to choose here
        tab.page.keyboard.press("3")
        assert tab.run("page.view.mode") == "matte"
        theme = tab.run("document.documentElement.dataset.theme")
        tab.page.click("#theme")
        assert tab.run("document.documentElement.dataset.theme") != theme


BAD_FILES = [
    pytest.param("text.mp4", "cannot be opened as a video", id="no-video"),
    pytest.param("sound.mp4", "holds no video stream", id="sound"),
    pytest.param("missing.mp4", "There is no file", id="missing"),
    pytest.param("../..", "Only files in", id="outside"),
]


@pytest.mark.parametrize(("name", "sentence"), BAD_FILES)
def test_a_path_that_cannot_be_opened_is_a_sentence(server, chromium, clips, name, sentence):
    with Tab(chromium, server.url) as tab:
        tab.open()
        tab.page.fill("#path", str(clips / name))
        tab.page.click("#path-form button")
        assert sentence in tab.toast()


def test_a_folder_of_images_and_an_address_are_opened(server, chromium, clips):
    with Tab(chromium, server.url) as tab:
        tab.open()
        tab.page.fill("#path", str(clips / "shot"))
        tab.page.click("#path-form button")
        tab.wait_shown()
        assert tab.run("[page.frame, page.state.start, page.state.end]") == [1001, 1001, 1006]
        tab.page.keyboard.press("End")
        tab.page.wait_for_function("page.shownFrame === 1006")
        assert tab.run("page.timeline.frameAt(page.timeline.xOf(1003))") == 1003
        address = f"{server.url}static/none.mp4"
        tab.open()
        tab.page.fill("#path", address)
        tab.page.click("#path-form button")
        assert "does not give this file (404" in tab.toast()


def test_uploads_are_checked_limited_and_opened(server, chromium, clips, tmp_path):
    huge = tmp_path / "huge.mp4"
    huge.write_bytes(bytes(2 << 20))
    with Tab(chromium, server.url) as tab:
        tab.open()
        tab.page.set_input_files("#file", str(huge))
        assert "too large to upload" in tab.toast()
        answer = tab.run(
            "() => fetch('api/upload?name=a.mp4', {method: 'PUT', body: new Uint8Array(2 << 20)})"
            ".then(r => r.json())"
        )
        assert "too large" in answer["error"]
        tab.page.set_input_files("#file", str(clips / "text.mp4"))
        tab.wait_toast("as a video")
        tab.page.set_input_files("#file", str(clips / "portrait.mp4"))
        tab.wait_shown()
        assert tab.run("[page.state.width, page.state.height]") == [90, 160]
        assert tab.run("page.state.title") == "portrait"


def test_a_session_that_is_gone_is_a_sentence_and_the_start_screen(server, chromium):
    with Tab(chromium, server.url) as tab:
        tab.page.goto(f"{server.url}?s=AAAAAAAAAAAAAAAAAAAAAA")
        assert "not on this server" in tab.toast()
        assert tab.page.is_visible("#drop")


def test_two_tabs_agree_and_two_people_do_not_meet(server, chromium):
    truth = next(masks for _, masks in shapes_frames())
    with Tab(chromium, server.url) as one, Tab(chromium, server.url) as other:
        one.open_example("shapes")
        other.open(f"?s={one.token}")
        one.click(*center(truth, 1))
        other.page.keyboard.press("n")
        other.click(*center(truth, 2))
        assert other.run("page.state.objects.map(o => o.id)") == [1, 2]
        one.page.wait_for_function("page.state.objects.length === 2")
        other.open_example("shapes")
        assert other.token != one.token
        assert other.run("page.state.objects.length") == 0
