"""The page on a tablet: taps, fingers that drag and pinch, and no part of it out of reach."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.browser import Tab, center, iou, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

LANDSCAPE, PORTRAIT = (1180, 820), (834, 1112)


@pytest.fixture
def tab(server, chromium):
    with Tab(chromium, server.url, LANDSCAPE, has_touch=True, device_scale_factor=2) as opened:
        opened.open_example("shapes")
        yield opened


def test_taps_drags_and_pinches(tab, truth):
    for tool in ("subtract", "add"):
        tab.page.tap(f"[data-tool={tool}]")
        tab.page.wait_for_selector(f"[data-tool={tool}][aria-pressed=true]")
    at = center(truth[0], 1)
    tab.touch([tab.screen(*at)])
    assert iou(tab.labels() == 1, truth[0] == 1) > 0.8

    x, y = tab.screen(*at)
    tab.touch(*([(x - gap, y), (x + gap, y)] for gap in (30, 60, 90, 120)))
    assert tab.run("page.view.zoom") == pytest.approx(4, rel=0.02)
    assert tab.screen(*at) == pytest.approx((x, y), abs=2)  # it zooms about the fingers
    assert tab.run("page.state.objects[0].anchors[0].clicks.length") == 1  # a pinch is no click

    tab.touch(*([(x + step, y + step)] for step in (0, 20, 40, 60)))  # one finger moves it
    assert tab.screen(*at) == pytest.approx((x + 60, y + 60), abs=2)
    assert tab.run("page.state.objects[0].anchors[0].clicks.length") == 1
    tab.page.click("[data-tool=subtract]")  # a tap so soon after a drag may be none
    tab.page.wait_for_selector("[data-tool=subtract][aria-pressed=true]")
    tab.touch([tab.screen(at[0] + 20, at[1])])
    assert tab.run("page.state.objects[0].anchors[0].clicks[1]") == [at[0] + 20, at[1], 0]

    tab.page.click("#fit")
    tab.page.click("#new-object")
    tab.page.click("[data-tool=box]")
    tab.page.wait_for_selector("[data-tool=box][aria-pressed=true]")
    rows, columns = np.nonzero(truth[0] == 2)
    corners = [(columns.min() - 2, rows.min() - 2), (columns.max() + 2, rows.max() + 2)]
    first, last = (tab.screen(*corner) for corner in corners)
    middle = ((first[0] + last[0]) / 2, (first[1] + last[1]) / 2)
    tab.touch([first], [middle], [last])
    assert iou(tab.labels() == 2, truth[0] == 2) > 0.8


def test_the_timeline_is_dragged_by_a_finger(tab):
    box = tab.page.locator("#timeline").bounding_box()

    def at(script: str, height: float) -> tuple[float, float]:
        return box["x"] + tab.run(script), box["y"] + height

    scrub = [at(f"page.timeline.xOf({frame})", 18) for frame in (10, 14, 20)]
    tab.touch(*([place] for place in scrub))
    tab.page.wait_for_function("page.shownFrame === 20")
    row = tab.run("page.timeline.yOfRange()")
    near_the_end = at("page.timeline.xOfEnd('last') - 12", row)
    tab.touch([near_the_end], *([at(f"page.timeline.xOf({frame})", row)] for frame in (30, 28)))
    assert tab.run("page.state.last") == 28


SIZES = [LANDSCAPE, PORTRAIT, (1280, 800), (1024, 768)]
OUT_OF_REACH = """() => {
    const outside = ({ left, top, right, bottom }) =>
        left < -1 || top < -1 || right > innerWidth + 1 || bottom > innerHeight + 1;
    return [...document.querySelectorAll('#editor :is(button, input, canvas)')]
        .filter(e => e.offsetParent && !e.closest('.objects, .tools'))  // these scroll
        .filter(e => outside(e.getBoundingClientRect())).map(e => e.id || e.className) }"""


@pytest.mark.parametrize("size", SIZES)
def test_no_part_is_out_of_reach(tab, truth, size):
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    tab.touch([tab.screen(*center(truth[0], 1))])
    assert tab.run("page.state.stale.length") > 0  # the bars say as much as they ever do
    assert tab.run("document.documentElement.scrollWidth") <= size[0]
    assert tab.run(OUT_OF_REACH) == []
    tab.page.tap("#export")
    dialog = tab.page.locator("#export-dialog").bounding_box()
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= size[0]
    assert dialog["y"] + dialog["height"] <= size[1]
    assert tab.page.is_visible("#export-go")
