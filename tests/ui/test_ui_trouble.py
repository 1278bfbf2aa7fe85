"""What goes wrong around the page: a server that dies or comes back, tabs that disagree."""

from __future__ import annotations

import pytest

from maskstream.ui.server.examples import SHAPES_COUNT
from tests.support.browser import Tab, center, free_port, iou, served, why_not

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]


def test_a_server_that_is_killed_while_tracking(chromium, tmp_path, truth):
    with served(tmp_path) as first:
        tab = Tab(chromium, first.url)
        tab.open_example("shapes")
        tab.click(*center(truth[0], 1))
        tab.page.click("#track")
        tab.page.wait_for_function("page.state.job?.status === 'running'")
        tab.page.click("#pause")
        tab.page.wait_for_function("page.state.job?.status !== 'running'")
        token = tab.token
        first.kill()
        tab.page.wait_for_selector("#offline:visible")
        tab.context.close()
    with served(tmp_path) as second, Tab(chromium, second.url) as tab:
        tab.open(f"?s={token}")
        assert tab.run("page.state.objects.length") == 1
        assert iou(tab.labels() == 1, truth[0] == 1) > 0.8
        if tab.run("page.state.stale.length"):
            tab.track()
        assert len(second.store(token)) == SHAPES_COUNT


REMEMBER_TOASTS = """() => {
    window.told = "";  // a toast may come and go while the test still waits for the server
    const toasts = document.querySelector("#toasts");
    new MutationObserver(() => { told += toasts.innerText; }).observe(toasts, { childList: true });
}"""


def test_a_tab_goes_on_when_the_server_is_back(chromium, tmp_path, truth):
    port = free_port()
    with served(tmp_path, port=port) as first:
        tab = Tab(chromium, first.url)
        tab.open_example("shapes")
        tab.click(*center(truth[0], 1))
        first.kill()
        tab.run("() => page.seek(1)")
        tab.page.wait_for_selector("#offline:visible")
    tab.run(REMEMBER_TOASTS)
    with served(tmp_path, port=port), tab:
        tab.page.wait_for_function("told.includes('server is back')")
        tab.run("() => page.select(null)")
        tab.click(*center(truth[0], 2))
        assert tab.run("page.state.objects.map(o => o.id)") == [1, 2]


def test_two_tabs_track_one_session(chromium, tmp_path, truth):
    with (
        served(tmp_path) as server,
        Tab(chromium, server.url) as one,
        Tab(chromium, server.url) as other,
    ):
        one.open_example("shapes")
        one.click(*center(truth[0], 1))
        other.open(f"?s={one.token}")
        one.page.click("#track")
        one.page.wait_for_function("page.running")
        one.page.click("#pause")
        one.page.wait_for_function("page.state.job?.status === 'paused'")
        other.run("() => page.track()")
        other.wait_toast("running already")
        other.run("() => page.select(null)")
        other.click(*center(truth[0], 2))  # an object that the job does not know
        other.run("() => page.act({do: 'undo'})")
        other.wait_toast("Stop tracking before you undo")
        other.run("() => page.act({do: 'resume'})")
        one.wait_tracked()
        other.page.wait_for_function("page.state.store !== null && !page.running")
        for tab in (one, other):
            tab.page.wait_for_function("page.state.stale.length === 1")  # that object
            assert tab.run("page.state.stale[0].object") == 2
        other.track()
        one.page.wait_for_function("page.state.stale.length === 0")
        store = server.store(one.token)
        assert len(store) == SHAPES_COUNT
        assert all(store.mask(number, 0).any() for number in (1, 2))
