"""HLS and recordings over HTTP: paced by their timestamps, patient with long segments."""

import logging
import threading
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

import av
import pytest

from maskstream.pipeline.sources.hls import longest_segment_s
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.pace import Pace
from tests.support.clock import FakeClock
from tests.support.media import moving_shapes, read, write_video


@contextmanager
def served(folder):
    """The address of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["live.m3u8", "clip.mp4"])
def test_what_comes_in_bursts_is_paced_by_its_timestamps(tmp_path, name):
    shapes, _ = moving_shapes(12, (36, 64))
    write_video(tmp_path / name, shapes, options={"bf": "0"})
    clock = FakeClock()
    with served(tmp_path) as address:
        source = open_live(f"{address}/{name}", clock=clock).source
        _, _, frames = read(replace(source, catch_up=None))  # this clock goes faster than decoding
    arrived = [frame.arrival.monotonic_s - 1000 for frame in frames]
    assert arrived == pytest.approx([number / 25 for number in range(12)])
    shown = [frame.pts_s for frame in frames]
    assert [at - shown[0] for at in shown] == pytest.approx(arrived)


def test_a_paced_stream_can_be_ended_while_it_waits(tmp_path):
    shapes, _ = moving_shapes(3, (36, 64))
    write_video(tmp_path / "clip.mp4", shapes, pts=[0, 5000, 8000], options={"bf": "0"})
    with (
        served(tmp_path) as address,
        open_live(f"{address}/clip.mp4").source.open() as reader,
    ):
        assert next(iter(reader)).index == 0  # the next would be in five seconds
    assert "maskstream-demux" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("dts", "took_s", "passed"),
    [
        pytest.param([0, 1, 2, 5], 0.0, [0, 1, 2, 5], id="as-stated"),
        pytest.param([7, 8, 9], 0.0, [0, 1, 2], id="from-its-own-start"),
        pytest.param([0, 1, 2], 0.4, [0, 1, 2], id="what-takes-a-while-is-made-up-for"),
        pytest.param([0, 1, 2, 3], 2.5, [0, 2.5, 5.0, 7.5], id="what-comes-late-is-not"),
        pytest.param([0, 1, 90, 91], 0.0, [0, 1, 1, 2], id="clock-jumps-forward"),
        pytest.param([50, 51, 0, 1], 0.0, [0, 1, 1, 2], id="clock-jumps-back"),
        pytest.param([0, None, 1], 0.0, [0, 0, 1], id="without-a-time"),
    ],
)
def test_packets_pass_when_they_are_due(dts, took_s, passed):
    """took_s: that the next packet takes to come."""
    clock, told = FakeClock(), []
    pace = Pace(Fraction(1, 1), clock, Event())
    for at in dts:
        packet = av.Packet(b"x")
        packet.dts = packet.pts = at
        assert pace.wait(packet)
        told.append(clock.now - 1000)
        clock.now += took_s
    assert told == pytest.approx(passed)


MEDIA = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:5.5,\na.ts\n"
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/media.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nh"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(MEDIA, 6.0), (MASTER, 6.0), ("#EXTM3U\n#EXTINF:9.75,\r\na.ts\n", 9.75), ("#EXTM3U\n", 0.0)],
)
def test_the_playlist_says_how_long_segments_are(tmp_path, text, seconds):
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "media.m3u8").write_text(MEDIA)
    (tmp_path / "live.m3u8").write_text(text)
    with served(tmp_path) as address:
        assert longest_segment_s(f"{address}/live.m3u8", {}, 5.0) == seconds
        assert longest_segment_s(f"{address}/none.m3u8", {}, 5.0) == 0.0


@pytest.mark.parametrize(("stall_s", "stalls_after_s"), [(3.0, 12.0), (20.0, 20.0)])
def test_a_stall_limit_shorter_than_segments_is_raised(tmp_path, caplog, stall_s, stalls_after_s):
    write_video(tmp_path / "live.m3u8", moving_shapes(12, (36, 64))[0])
    playlist = (tmp_path / "live.m3u8").read_text()
    lines = [line for line in playlist.splitlines() if "TARGETDURATION" not in line]
    lines.insert(1, "#EXT-X-TARGETDURATION:6")
    (tmp_path / "live.m3u8").write_text("\n".join(lines))
    caplog.set_level(logging.INFO)
    with served(tmp_path) as address:
        source = open_live(
            f"{address}/live.m3u8", InputOptions(stall_s=stall_s), clock=FakeClock()
        ).source
        with replace(source, catch_up=None).open() as reader:
            assert reader._container.read_timeout == stalls_after_s
            assert len(list(reader)) == 12
    assert ("it stalls after 12 s" in caplog.text) == (stall_s < stalls_after_s)
