"""The page shows the frame that it names, also of files that cannot be sought."""

from __future__ import annotations

import pytest

from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.store import MaskStore
from tests.support.browser import Tab, iou, served, why_not
from tests.support.kinds import COUNT, SIZE_HW, number_in, write
from tests.support.media import read

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

KINDS = ["ts-h264-b", "mkv-live", "ts-joined-twice", "avi-mpeg4-packed", "mp4-hole", "ts-joined"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The folder of the clips."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def server(tmp_path_factory, clips):
    """The page, which may open the clips."""
    with served(tmp_path_factory.mktemp("sessions"), "--allow", clips) as found:
        yield found


def seen(tab: Tab) -> int:
    """The number that is drawn into the picture on the screen."""
    height, width = SIZE_HW
    ones = [tab.pixel(width * (bit + 0.5) // 8, height // 4)[1] > 127 for bit in range(8)]
    return sum(1 << bit for bit in range(8) if ones[bit])


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_that_is_gone_to_is_shown(server, chromium, clips, kind):
    clip = write(kind, clips)
    drawn = [number_in(frame.rgb()) for frame in read(VideoFile(clip))[2]]
    last = len(drawn) - 1
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={server.begin(clip)}")
        for frame in (0, 3 * last // 5, 4, last, last // 3):
            tab.seek(frame)
            assert seen(tab) == drawn[frame]
        tab.run("() => page.api.state().then(state => page.take(state))")
        if kind in ("mp4-hole", "mkv-live"):  # the container, or its packets, promise more frames
            tab.run("() => page.seek(page.state.end)")
            tab.page.wait_for_function(f"page.shownFrame === {last}")
        assert tab.run("page.state.frames") == last + 1
        assert tab.page.inner_text("#frame-count") == f"/ {last}" or kind != "mp4-hole"


def test_a_box_tracks_what_it_was_drawn_on(server, chromium, clips):
    clip = write("ts-hevc-b", clips)
    with Tab(chromium, server.url) as tab:
        tab.open(f"?s={server.begin(clip)}")
        tab.seek(60)
        assert seen(tab) == 60
        tab.click(12, 12)
        labels = tab.labels()
        tab.track()
        tab.seek(60)
        assert iou(tab.labels() == 1, labels == 1) > 0.9
        store = next((server.sessions / tab.token).glob("masks-*.zarr"))
        assert MaskStore(store).indices.tolist() == list(range(COUNT))
