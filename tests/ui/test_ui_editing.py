"""Editing in a real browser: what to do next, what is gone, the range, edges, exports."""

from __future__ import annotations

import json
import shutil
import zipfile

import av
import numpy as np
import pytest

from maskstream.ui.server.examples import SHAPES_COUNT, SHAPES_HW
from tests.support.browser import Tab, center, iou, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

LAST = SHAPES_COUNT - 1


@pytest.fixture(scope="module")
def tracked(server, chromium, truth):
    """A session with two tracked objects, to be taken copies of."""
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        assert not tab.page.is_visible("#next")
        tab.click(*center(truth[0], 1))
        tab.page.keyboard.press("n")
        tab.click(*center(truth[0], 2))
        assert "masks on the prompted frames only" in tab.page.inner_text("#next")
        tab.page.click("#next-track")
        tab.page.wait_for_function("page.running", timeout=10_000)
        assert not tab.page.is_visible("#next")
        tab.wait_tracked()
        assert not tab.page.is_visible("#next")
        assert tab.page.inner_text("#track") == "Tracked"
        return tab.token


@pytest.fixture
def tab(server, chromium, tracked, request):
    """A tab with a copy of that session."""
    token = f"{abs(hash(request.node.name)) % 10**22:022d}"
    shutil.copytree(server.sessions / tracked, server.sessions / token)
    with Tab(chromium, server.url) as opened:
        opened.open(f"?s={token}")
        yield opened


def stale(tab: Tab) -> list[list[int]]:
    return tab.run("page.state.stale.map(s => [s.object, s.first, s.last])")


def test_what_to_do_next_is_said(tab, truth):
    tab.seek(20)
    tab.run("() => page.select(2)")
    tab.click(*center(truth[20], 2))
    assert stale(tab) == [[2, 0, 19], [2, 20, LAST]]
    assert f"Object 2: {SHAPES_COUNT} frames to track again" in tab.page.inner_text("#next")
    assert "due" in tab.page.get_attribute("#track-split", "class")
    tab.page.click("#next-track")
    begun = "page.state.job?.done > 2 || !page.state.stale.length"
    tab.page.wait_for_function(begun)
    tab.run("() => document.querySelector('#pause').click()")  # it may be gone: the job is done
    tab.page.wait_for_function("page.state.job?.status !== 'running'")
    if tab.run("page.state.job?.status") == "paused":
        tab.page.click("#stop")
        tab.wait_tracked()
        if tab.run("page.state.stale.length"):
            assert tab.page.inner_text("#next-label") == "Continue"
            tab.page.click("#next-track")
    tab.page.wait_for_function("!page.running && !page.state.stale.length")
    assert tab.page.inner_text("#track") == "Tracked"


def test_an_object_is_gone_from_a_frame_on(tab, server):
    tab.run("() => page.select(1)")
    tab.seek(24)
    assert (tab.labels() == 1).any()
    tab.page.keyboard.press("g")
    tab.settle()
    assert not (tab.labels() == 1).any()
    assert tab.page.is_visible("#gone-here")
    assert stale(tab) == [[1, 24, LAST]]
    tab.track()
    store = server.store(tab.token)
    assert [store.mask(1, row).any() for row in (23, 24, LAST)] == [True, False, False]
    assert store.mask(2, LAST).any()
    tab.seek(24)
    tab.page.click("#gone-undo")
    tab.settle()
    assert not tab.page.is_visible("#gone-here")
    assert stale(tab) != []


def test_the_ends_of_the_range_are_dragged(tab):
    box = tab.page.locator("#timeline").bounding_box()

    def drag(end: str, frame: int, shown: int | None = None) -> None:
        at, to = tab.run(
            "([end, frame]) => [page.timeline.xOfEnd(end), page.timeline.xOf(frame)]",
            [end, frame],
        )
        row = box["y"] + tab.run("page.timeline.yOfRange()")
        tab.page.mouse.move(box["x"] + at, row)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + to, row, steps=5)
        assert tab.run("page.frame") == (frame if shown is None else shown)
        tab.page.mouse.up()
        tab.settle()

    drag("first", 7)
    drag("last", 28)
    assert tab.run("[page.state.first, page.state.last]") == [7, 28]
    drag("last", 3, shown=7)  # no further than to the other end
    assert tab.run("[page.state.first, page.state.last]") == [7, 7]
    tab.page.keyboard.press("Control+z")
    tab.settle()
    assert tab.run("[page.state.first, page.state.last]") == [7, 28]


OPACITY = """() => { const c = document.getElementById('preview');
    const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let full = 0, part = 0;
    for (let i = 3; i < all.length; i += 4) { full += all[i] > 250; part += all[i] > 5 && all[i] <= 250 }
    return [full, part] }"""  # noqa: E501


def test_the_preview_shows_the_edges_of_the_export(tab):
    def opacity_when(field: str, value: float) -> list[int]:
        before = tab.run("() => page.exports.drawn")
        tab.page.fill(f"#{field}", str(value))
        tab.page.wait_for_function("was => page.exports.drawn > was", arg=before)
        return tab.run(OPACITY)

    tab.page.click("#export")
    tab.page.click("[data-format=png-rgba]")
    full, part = tab.run(OPACITY)
    grown, _ = opacity_when("grow", 6)
    assert grown > 1.1 * full
    opacity_when("grow", 0)
    feathered, ramp = opacity_when("feather", 8)
    assert feathered < full
    assert ramp > 2 * part
    before = tab.run("() => page.exports.drawn")
    tab.page.click("[data-format=coco]")  # which takes no edges
    tab.page.wait_for_function("was => page.exports.drawn > was", arg=before)
    assert tab.run(OPACITY) == [full, part]


def test_a_movie_an_annotation_file_and_a_folder_are_downloaded(tab, server, truth):
    store = server.store(tab.token)
    tab.page.click("#export")
    with av.open(str(tab.exported("prores"))) as movie:
        frames = list(movie.decode(video=0))
    assert len(frames) == SHAPES_COUNT
    rgba = frames[17].to_ndarray(format="rgba")
    assert rgba.shape == (*SHAPES_HW, 4)
    assert iou(rgba[..., 3] > 127, store.frame(17).labels > 0) > 0.98

    coco = json.loads(tab.exported("coco").read_text())
    assert len(coco["images"]) == SHAPES_COUNT
    assert {c["name"] for c in coco["categories"]} == {"Object 1", "Object 2"}

    with zipfile.ZipFile(tab.exported("yolo-seg")) as packed:
        texts = [name for name in packed.namelist() if name.endswith(".txt")]
        lines = packed.read(sorted(texts)[17]).decode().splitlines()
    assert len(texts) >= SHAPES_COUNT
    assert len(lines) == len(np.unique(store.frame(17).labels)) - 1
