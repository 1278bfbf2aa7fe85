"""Several videos in one list: uploads, tracking and exports wait in line, with progress."""

from __future__ import annotations

import json

import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.workspace import Workspace
from tests.support.browser import Tab, center, why_not
from tests.support.media import moving_shapes, write_video

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def test_videos_are_uploaded_tracked_and_exported_together(server, chromium, tmp_path):
    files, places = [], []
    for seed in (1, 2):
        frames, masks = moving_shapes(16, (120, 176), shapes=2, seed=seed)
        files.append(write_video(tmp_path / f"clip{seed}.mp4", frames))
        places.append(center(masks[0], 1))
    with Tab(chromium, server.url) as tab:
        tab.open()
        tab.page.set_input_files("#file", files)
        tab.page.wait_for_function("document.querySelectorAll('#recent li').length === 2")
        links = tab.page.locator("#recent li > a:first-child")
        addresses = [links.nth(i).get_attribute("href") for i in range(2)]
        tab.page.wait_for_selector("#recent :text('No objects yet')")
        tab.page.click("#export-all")
        tab.wait_toast("Nothing is tracked yet")
        for address in addresses:
            tab.open(address)
            tab.click(*places[0 if "clip1" in tab.page.inner_text("#title") else 1])
        tab.open()
        tab.page.click("#track-all")
        tracked = "[...document.querySelectorAll('.says')].every(e => e.innerText === 'Tracked')"
        tab.page.wait_for_function(tracked)
        tab.page.select_option("#all-format", "coco")
        tab.page.click("#export-all")
        tab.page.wait_for_function(
            "[...document.querySelectorAll('#recent li > a:last-child')].every(e => !e.hidden)"
        )
        for row in range(2):
            with tab.page.expect_download() as got:
                tab.page.locator("#recent li > a:last-child").nth(row).click()
            assert len(json.loads(got.value.path().read_text())["images"]) == 16
        tab.page.click("#track-all")
        tab.wait_toast("Nothing is left to track")


def test_progress_opens_no_video(server, chromium):
    with Tab(chromium, server.url) as tab:
        tab.open_example("shapes")
        token = tab.token
    anew = Workspace(server.sessions, PipelineConfig(), Limits())
    progress = anew.progress(token).to_json()
    assert progress == {"title": "Drawn shapes", "objects": 0, "tracked": False, "job": None}
    assert anew._open == {}
