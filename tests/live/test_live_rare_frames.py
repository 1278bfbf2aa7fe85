"""Streams whose frames are rarer than the stall limit allows are opened, and not given up."""

import socket

import pytest

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.bench.loopback import LoopbackCamera
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.patience import Patience
from tests.support.media import moving_shapes, read


@pytest.mark.parametrize(
    ("intervals_s", "limit_s"),
    [
        pytest.param([], 3.0, id="unknown"),
        pytest.param([0.04] * 20, 3.0, id="25-fps"),
        pytest.param([2.5] * 3, 7.5, id="0.4-fps"),
        pytest.param([0.04, 0.04, 9.0, 0.04], 3.0, id="one-pause"),
        pytest.param([2.5] * 9 + [0.04] * 9, 3.0, id="faster-by-day"),
    ],
)
def test_the_limit_of_silence_follows_the_usual_interval(intervals_s, limit_s):
    patience, at_s = Patience(3.0), 0.0
    patience.note(at_s)
    for interval_s in intervals_s:
        at_s += interval_s
        patience.note(at_s)
    assert patience.limit_s == pytest.approx(limit_s)
    assert patience.is_for_rare == (limit_s > 3.0)


def test_the_time_between_connections_is_no_interval():
    patience = Patience(3.0)
    for begun_s in (0.0, 60.0, 120.0):
        patience.connected()
        patience.note(begun_s)
        patience.note(begun_s + 0.1)
    assert patience.limit_s == 3.0


def test_more_patience_is_had_once_with_a_stream_of_which_nothing_is_known():
    patience = Patience(2.0)
    assert patience.raise_for_first()
    assert patience.limit_s == 6.0
    assert not patience.raise_for_first()
    assert patience.raise_to(8.0)
    assert not patience.raise_to(7.0)
    assert patience.limit_s == 8.0


def test_a_stream_with_rare_frames_is_opened():
    """A frame takes 0.5 s, and is known to be whole when the next one begins."""
    with LoopbackCamera(moving_shapes(5, (54, 96))[0], rate=2) as camera:
        source = open_live(camera.url, InputOptions(stall_s=0.4)).source
        with source.open() as reader:
            assert next(iter(reader)).index == 0
        assert camera.connections == 2
        with source.open() as reader:  # what is known by now
            frames = [frame for frame, _ in zip(reader, range(2), strict=False)]
    assert len(frames) == 2


def test_a_stream_that_stays_silent_is_still_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:  # which takes connections, and no more
        source = open_live(
            f"tcp://127.0.0.1:{server.getsockname()[1]}", InputOptions(stall_s=0.1)
        ).source
        for _ in range(2):
            with pytest.raises(UnreadableSourceError):
                read(source)
        assert source.patience.limit_s == pytest.approx(0.3)
