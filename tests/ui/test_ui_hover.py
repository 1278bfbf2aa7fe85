"""What a click would do, shown while hovering; cleaning up a mask; the list of what was found."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.browser import Tab, center, iou, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

PREVIEW = "() => page.view.preview && Array.from(page.view.preview.labels)"


@pytest.fixture
def tab(server, chromium):
    with Tab(chromium, server.url) as opened:
        opened.open_example("shapes")
        opened.run("() => page.leaveFind()")
        yield opened


def preview(tab: Tab) -> np.ndarray:
    tab.page.wait_for_function("page.view.preview && !page.previewing")
    labels = np.array(tab.run(PREVIEW), np.uint8)
    return labels.reshape(tab.labels().shape) > 0


def test_the_preview_is_what_the_click_gives(tab, truth):
    x, y = center(truth[0], 1)
    tab.page.mouse.move(*tab.screen(x, y))
    shown = preview(tab)
    assert iou(shown, truth[0] == 1) > 0.8
    tab.click(x, y)
    assert np.array_equal(tab.labels() == 1, shown)
    tab.page.keyboard.down("Shift")  # turns the sign
    tab.page.mouse.move(*tab.screen(x + 12, y))
    less = preview(tab)
    assert not less[y, x + 12]
    assert not (less & ~shown).any()
    tab.page.mouse.click(*tab.screen(x + 12, y))
    tab.page.keyboard.up("Shift")
    tab.settle()
    assert np.array_equal(tab.labels() == 1, less)
    tab.page.mouse.move(5, 5)
    tab.page.wait_for_function("!page.view.preview")


def test_a_mask_is_cleaned_up(tab):
    tab.run(
        """async () => {
            const stroke = (points, radius) => page.prompt({ do: 'brush', frame: 0, points, radius });
            await stroke([[100, 100], [200, 100]], 20);
            page.select(1);
            await stroke([[400, 200]], 2);
        }"""  # noqa: E501
    )
    tab.settle()
    assert tab.labels()[200, 400] == 1
    tab.page.keyboard.press("u")
    tab.page.click("#clean-apply")
    tab.settle()
    labels = tab.labels()
    assert labels[200, 400] == 0
    assert labels[100, 150] == 1
    assert tab.run("page.state.objects[0].anchors[0].via") == "cleanup"


def test_what_was_found_is_listed_and_filtered(tab):
    tab.page.keyboard.press("f")
    tab.page.wait_for_selector("#found button")
    scores = tab.run("page.found.objects.map((found) => found.score)")
    listed = tab.page.locator("#found button")
    assert listed.count() == len([s for s in scores if s >= 0.5])
    most = max(scores)
    tab.page.fill("#found-least", str(round(most - 0.005, 2)))
    kept = listed.count()
    assert 1 <= kept <= len(scores)
    assert tab.run("new Set(page.view.proposals.labels).size") == kept + 1
    tab.page.click("#found-all")
    tab.settle()
    assert tab.run("page.state.objects.length") == kept
    tab.page.keyboard.press("Escape")
    assert not tab.page.is_visible("#found-box")
