"""Live runs on a real RTSP server, over TCP and UDP, also when it is restarted in between."""

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.sources.live import InputOptions
from tests.support.live_runs import PATIENT, run_until
from tests.support.rtsp_server import missing, rtsp_server

WHY = missing()
pytestmark = pytest.mark.skipif(
    bool(WHY), reason=f"no RTSP server (gir1.2-gst-rtsp-server-1.0 and so on, .ci/run): {WHY}"
)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_stream_goes_on_after_its_server_was_restarted(transport):
    config = load_config(overrides=[*PATIENT, "seeding.enabled=false"])
    options = InputOptions(rtsp_transport=transport, stall_s=1.0)
    with rtsp_server() as server:
        session = LiveSession.open(server.url, config, options)
        state = {"gap": 0}

        def restarted(live):
            state["gap"] = state["gap"] or (live.frame.arrival.gap_s > 0 and live.frame.index)
            if live.frame.index == 15:
                server.stop()
                server.start()
            return state["gap"] and live.frame.index >= state["gap"] + 5

        taken, summary = run_until(session, restarted)
    assert (summary.source["connections"], summary.source["gaps"]) == (2, 1)
    before = [live.frame for live in taken if live.frame.index < state["gap"]]
    assert len(before) > 5
    assert {frame.rgb().shape for frame in before[-3:]} == {(96, 160, 3)}
    times = np.array([frame.pts_s for frame in before])
    steps = 30 * np.diff(times)  # the server's own times; the machine may have lost frames
    assert np.all(steps > 0.5)
    assert steps == pytest.approx(np.round(steps), abs=0.1)
