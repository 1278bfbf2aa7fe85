"""The page for everybody: axe-core in both themes, phones, and every action by keys."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.browser import Tab, center, iou, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def session(server, chromium, truth):
    """A session with two tracked objects and frames to check."""
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        tab.click(*center(truth[0], 1))
        tab.run("() => page.select(null)")
        tab.click(*center(truth[0], 2))
        tab.track()
        return tab.token


def violations(tab: Tab) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab.page).response["violations"]
    return [f"{each['id']}: {[node['target'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing(server, chromium, session, theme):
    with Tab(chromium, server.url, color_scheme=theme) as tab:
        tab.open()
        tab.page.wait_for_selector("[data-example]")
        assert violations(tab) == []
        tab.open(f"?s={session}")
        tab.seek(20)
        assert violations(tab) == []
        tab.run("() => document.getElementById('track-menu').hidden = false")
        assert violations(tab) == []
        for dialog in ("help", "export"):
            tab.page.click(f"#{dialog}")
            tab.page.wait_for_selector(f"#{dialog}-dialog[open]")
            assert violations(tab) == []
            tab.page.keyboard.press("Escape")
        tab.open("camera")
        tab.page.wait_for_selector("button:visible")
        assert violations(tab) == []


CUT_OFF = """() => [...document.querySelectorAll('#editor :is(button, input, canvas)')]
    .filter(e => e.offsetParent && !e.closest('.panel, .tools, .timeline-box'))
    .filter(e => {
        const { left, right } = e.getBoundingClientRect();
        return left < -1 || right > innerWidth + 1 })
    .map(e => e.id)"""


@pytest.mark.parametrize("width", [390, 1024])
def test_nothing_is_cut_off_on_a_phone_or_small_screen(server, chromium, session, width):
    with Tab(chromium, server.url, (width, 800)) as tab:
        tab.open(f"?s={session}")
        assert tab.run(CUT_OFF) == []
        assert tab.run("document.documentElement.scrollWidth") <= width
        for shown in ("#help", "#theme", "#export", "#frame", "#mark-out", "#next-issue"):
            assert tab.page.is_visible(shown), shown
        assert tab.page.locator("#view").bounding_box()["height"] > 250


def test_an_object_is_clicked_chosen_moved_and_named_by_keys(server, chromium, truth):
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        press = tab.page.keyboard.press
        press("x")
        target = np.array(tab.screen(*center(truth[0], 1)))
        for _ in range(400):
            at = np.array(tab.run("page.view.toScreen(...page.view.aim)"))
            dx, dy = target - at
            if max(abs(dx), abs(dy)) < 8:
                break
            far = "" if max(abs(dx), abs(dy)) > 12 else "Shift+"
            side = ("ArrowRight" if dx > 0 else "ArrowLeft") if abs(dx) > abs(dy) else None
            press(far + (side or ("ArrowDown" if dy > 0 else "ArrowUp")))
        press("Enter")
        tab.settle()
        assert iou(tab.labels() == 1, truth[0] == 1) > 0.8
        press("Escape")
        tab.run("() => page.select(null)")
        tab.click(*center(truth[0], 2))
        press("Shift+ArrowUp")
        assert tab.run("page.selected") == 1
        press("Alt+ArrowDown")
        tab.settle()
        assert tab.run("page.state.order") == [2, 1]
        press("F2")
        tab.page.keyboard.type("Disc")
        press("Enter")
        tab.settle()
        assert tab.run("page.state.objects[0].name") == "Disc"
        press("Shift+S")
        assert tab.run("[...page.view.style.visible]") == [1]
        press("Shift+S")
        assert tab.run("page.view.style.visible.size") == 2


TIMES = [("30", 30), ("0:01", 24), ("00:00:01:02", 26), ("0.5s", 12), ("1:00:00", 35)]


@pytest.mark.parametrize(("text", "frame"), TIMES)
def test_a_frame_is_reached_by_number_time_or_timecode(server, chromium, session, text, frame):
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={session}")
        tab.page.fill("#frame", text)
        tab.page.press("#frame", "Enter")
        tab.page.wait_for_function(f"page.shownFrame === {frame}")


def test_playback_shows_masks_drops_late_frames_and_can_be_shuttled(server, chromium, session):
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={session}")
        tab.page.keyboard.press("l")
        tab.page.wait_for_function("page.playing && page.frame > 4")
        assert "of 24 fps" in tab.page.inner_text("#rate")
        tab.page.keyboard.press("k")
        tab.page.wait_for_function("!page.playing")
        at = tab.run("page.frame")
        tab.settle()
        assert len(np.unique(tab.labels())) == 3
        tab.page.keyboard.press("j")
        tab.page.wait_for_function(f"page.playing && page.frame < {at}")
        tab.page.wait_for_function("!page.playing && page.frame === 0")
        assert tab.run("page.frames.blocks.size") > 16
        tab.page.keyboard.press("l")
        tab.page.keyboard.press("l")
        assert tab.run("page.playback.rate") == 2
        tab.page.wait_for_function(f"!page.playing && page.frame === {35}")


def test_the_timeline_zooms_about_a_frame_and_has_thumbnails(server, chromium, session):
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={session}")
        tab.page.wait_for_function("page.timeline.film.size > 5")
        before = tab.run("page.timeline.xOf(20)")
        tab.run("() => page.timeline.zoomBy(2, 20)")
        assert tab.run("page.timeline.xOf(20)") == pytest.approx(before, abs=1)
        assert tab.run("page.timeline.frameAt(page.timeline.xOf(20))") == 20
        tab.seek(0)
        assert tab.run("page.timeline.xOf(0)") > 100  # it is in view
        tab.page.click("#zoom-out")
        tab.page.click("#zoom-out")
        assert tab.run("page.timeline.zoom") == 1


def test_a_job_does_not_pull_the_view_back(server, chromium, truth):
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        tab.click(*center(truth[0], 1))
        tab.page.click("#track")
        tab.page.wait_for_function("page.running")
        tab.seek(30)
        assert tab.page.get_attribute("#follow", "aria-pressed") == "false"
        tab.wait_tracked()
        assert tab.run("page.frame") == 30


def test_draft_and_final_say_what_they_cost(server, chromium, truth):
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        tab.click(*center(truth[0], 1))
        tab.page.wait_for_function("page.state.seconds.final > page.state.seconds.draft")
        tab.page.click("#track-more")
        assert "about" in tab.page.inner_text("[data-preset=final]")
        tab.page.click("[data-preset=final]")
        tab.page.click("[data-direction=both]")
        tab.page.wait_for_function("page.state.store && !page.running")
        store = server.store(tab.token)
        assert all(frame.keyframe for frame in store.frame_objects())


def test_a_lost_connection_stays_in_view(server, chromium, session):
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={session}")
        tab.context.set_offline(True)
        tab.page.wait_for_selector("#offline:visible")
        tab.run("() => document.getElementById('toasts').replaceChildren()")
        tab.page.wait_for_timeout(500)
        assert tab.page.is_visible("#offline")
        tab.context.set_offline(False)
        tab.page.wait_for_selector("#offline", state="hidden")


@pytest.mark.slow
def test_fifty_objects_leave_the_image_where_it_is(server, chromium):
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        before = tab.page.locator("#view").bounding_box()
        tab.run(
            """async () => {
                for (let i = 0; i < 50; i++) {
                    page.select(null);
                    const points = [[20 + 48 * (i % 10), 30 + 50 * Math.floor(i / 10)]];
                    await page.prompt({ do: 'brush', frame: 0, points, radius: 12 });
                }
            }"""
        )
        tab.settle()
        assert tab.run("page.state.objects.length") == 50
        assert len(set(tab.run("page.state.objects.map(o => o.colour)"))) == 50
        assert tab.page.locator("#view").bounding_box() == before
        listed = tab.page.locator("#objects").bounding_box()
        newest = tab.page.locator("[data-object='50']").bounding_box()
        assert listed["y"] <= newest["y"] < listed["y"] + listed["height"]
        tab.page.click("#show-all")
        tab.page.wait_for_function("page.view.style.visible.size === 0", polling=100)
