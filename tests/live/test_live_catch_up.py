"""Arrivals of live frames in presentation order, and what is skipped when decoding is behind."""

import threading
from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipeline.cli.run_request import RunRequest, _open_source
from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.sources.arrivals import PresentationArrivals
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.packet_feed import CatchUp, PacketFeed
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.types import Arrival
from tests.support.clock import FakeClock
from tests.support.media import moving_shapes, read, write_video

WAIT_S = 30
B_FRAMES = {"bf": "2", "g": "10", "b-adapt": "0", "sc_threshold": "0"}


class Ticking(FakeClock):
    """One that goes on by a millisecond whenever it is read."""

    def monotonic(self):
        self.now += 0.001
        return self.now


class LateDecoder(FakeClock):
    """One by which packets are `late_s` old whenever the decoder takes one."""

    def __init__(self, late_s):
        super().__init__()
        self.late_s = late_s

    def monotonic(self):
        demuxing = threading.current_thread().name == "maskstream-demux"
        return self.now if demuxing else self.now + self.late_s


@pytest.fixture(scope="module")
def with_b_frames(tmp_path_factory):
    shapes, _ = moving_shapes(30, (36, 64))
    path = tmp_path_factory.mktemp("b") / "b.ts"
    return write_video(path, shapes, options=B_FRAMES)


def test_frames_of_a_stream_with_b_frames_are_stamped_in_presentation_order(with_b_frames):
    _, _, frames = read(LiveStream(str(with_b_frames), clock=Ticking()))
    pts = [frame.pts for frame in frames]
    stamps = [frame.arrival.monotonic_s for frame in frames]
    assert len(frames) == 30
    assert pts == sorted(pts)
    assert stamps == sorted(set(stamps))
    captured = [frame.arrival.unix_s for frame in frames]
    assert captured == sorted(captured)


@pytest.mark.parametrize(
    ("steps", "arrivals"),
    [
        pytest.param("+0 =0 +1 =1 +2 =2", [0, 1, 2], id="as-they-come"),
        pytest.param("+0 =0 +3 +1 +2 =1 =2 =3 +4 =4", [0, 1, 2, 3, 4], id="b-frames"),
        pytest.param("+0 =0 +3 +1 +2 +6 =3 +4 +5 =6", [0, 3, 6], id="b-frames-left-out"),
        pytest.param("+0 =0 +1 =1 +9 +2 =2 +3 =3 =9", [0, 1, 2, 3, 4], id="one-far-ahead"),
        pytest.param("+8 =8 +9 +0 =9 =0 +1 =1", [0, 0, 2, 3], id="clock-jumps-back"),
        pytest.param("+5 =5 +5 =5 +6 =6", [0, 1, 2], id="a-time-twice"),
        pytest.param("+- =- +- =-", [0, 1], id="without-times"),
    ],
)
def test_the_kth_frame_has_the_kth_arrival(steps, arrivals):
    """+PTS: the next packet is decoded. =PTS: a frame is shown."""
    stamps, packets, told = PresentationArrivals(), 0, []
    for kind, text in steps.split():
        pts = None if text == "-" else int(text)
        if kind == "+":
            stamps.add(pts, Arrival(packets, packets))
            packets += 1
        else:
            told.append(stamps.take(pts).monotonic_s)
    assert told == arrivals


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=60))
def test_arrivals_never_go_back_and_never_come_before_they_are_there(steps):
    stamps, told = PresentationArrivals(), []
    for number, (pts, shows) in enumerate(steps):
        stamps.add(pts, Arrival(number, number))
        if shows:
            told.append(stamps.take(pts).monotonic_s)
            assert told[-1] <= number
    assert told == sorted(told)


def packet(number, *, key):
    made = av.Packet(bytes(10))
    made.pts = made.dts = number
    made.time_base = Fraction(1, 10)
    made.is_keyframe = key
    return made


@pytest.mark.parametrize(
    ("keys", "now_s", "taken", "skipped"),
    [
        pytest.param("Kppp", 0.4, "0123", 0, id="in-time"),
        pytest.param("KpppKppp", 0.1, "01234567", 0, id="not-yet-late"),
        pytest.param("KpppKppp", 0.8, "4567", 4, id="to-the-keyframe-that-waits"),
        pytest.param("KpppKpppKp", 1.0, "89", 8, id="to-the-newest-one"),
        pytest.param("KKKK", 0.5, "3", 3, id="all-are-keyframes"),
        pytest.param("Kpppppppp", 0.9, "012345678", 0, id="no-keyframe-waits"),
        pytest.param("Kpppppppp", 2.5, "", 9, id="too-far-behind"),
    ],
)
def test_groups_of_pictures_are_skipped_before_decoding_when_packets_are_old(
    keys, now_s, taken, skipped
):
    """Packets come every 0.1 s and have all come; then the decoder takes what is there."""
    clock, waiting = FakeClock(), threading.Event()
    clock.now = 0.0

    def come():
        yield from (packet(number, key=kind == "K") for number, kind in enumerate(keys))
        waiting.set()

    feed = PacketFeed(come(), lambda p: Arrival(p.pts / 10, 0.0), clock, CatchUp(0.45, 2.0))
    assert waiting.wait(WAIT_S)
    clock.now = now_s
    got = [each.packet.pts for each in feed]
    assert got == [int(number) for number in taken]
    assert feed.skipped == skipped
    assert feed.newest.monotonic_s == pytest.approx((len(keys) - 1) / 10)


class Watched(FakeClock):
    """One that tells when somebody reads it: here the decoder, which holds up the demuxer then."""

    def __init__(self):
        super().__init__()
        self.now, self.was_read = 5.0, threading.Event()

    def monotonic(self):
        self.was_read.set()
        return self.now


@pytest.mark.parametrize(("keyframe_at", "first"), [(58, 58), (None, 105)])
def test_after_that_it_goes_on_at_a_keyframe_or_without_one_after_a_while(keyframe_at, first):
    clock, waiting = Watched(), threading.Event()

    def come():
        yield from (packet(number, key=number == 0) for number in range(6))
        waiting.set()
        assert clock.was_read.wait(WAIT_S)
        yield from (packet(number, key=number == keyframe_at) for number in range(50, 120))

    feed = PacketFeed(come(), lambda p: Arrival(p.pts / 10, 0.0), clock, CatchUp(0.45, 2.0))
    assert waiting.wait(WAIT_S)
    each = next(iter(feed))
    assert (each.packet.pts, each.after_jump) == (first, True)
    feed.close(WAIT_S, lambda: None)


def test_packets_that_wait_are_bounded():
    clock, over = FakeClock(), threading.Event()

    def come():
        yield from (packet(number, key=number % 50 == 0) for number in range(5000))
        over.set()

    feed = PacketFeed(come(), lambda p: Arrival(clock.now, 0.0), clock, CatchUp())
    assert over.wait(WAIT_S)
    assert len(feed) <= 1024
    assert feed.skipped + len(list(feed)) == 5000


def test_a_source_that_waits_for_its_reader_loses_nothing_and_is_not_read_far_ahead():
    clock, asked = FakeClock(), []

    def come():
        for number in range(50):
            asked.append(number)
            yield packet(number, key=number == 0)

    feed = PacketFeed(come(), lambda p: Arrival(0.0, 0.0), clock)
    clock.now += 100
    for number, each in enumerate(feed):
        assert each.packet.pts == number
        assert len(asked) <= number + 7
    assert feed.skipped == 0


def test_a_demuxer_that_hangs_closes_its_input_when_it_wakes():
    wake, closed = threading.Event(), threading.Event()

    def come():
        yield packet(0, key=True)
        wake.wait(WAIT_S)

    feed = PacketFeed(come(), lambda p: Arrival(0.0, 0.0), FakeClock())
    next(iter(feed))
    feed.close(0.01, closed.set)
    assert not closed.is_set()
    wake.set()
    assert closed.wait(WAIT_S)


@pytest.mark.parametrize("late_s", [0.0, 0.1, 0.2])
def test_late_frames_are_skipped_and_counted_and_the_newest_is_shown(with_b_frames, late_s):
    """A little late: no B-frames. Later: nothing before a keyframe that has come."""
    clock = LateDecoder(late_s)
    source = LiveStream(str(with_b_frames), clock=clock, catch_up=CatchUp(0.15, 2.0))
    with source.open() as reader:
        frames = list(reader)
    assert reader.skipped + len(frames) == 30
    assert (reader.skipped >= 5) if late_s else reader.skipped == 0
    assert reader.report.corrupt_packets == 0


def test_decoding_can_be_spared_when_it_keeps_up(with_b_frames):
    with LiveStream(str(with_b_frames)).open() as reader:
        reader.spare_decoding = True
        frames = list(reader)
    assert reader.skipped >= 3  # those that were decoded when it was opened are there
    assert reader.skipped + len(frames) == 30


def test_a_recording_holds_also_what_was_skipped(with_b_frames, tmp_path):
    kept = tmp_path / "kept.ts"
    clock, catch_up = LateDecoder(0.1), CatchUp(0.15, 2.0)
    _, _, shown = read(LiveStream(str(with_b_frames), record=kept, clock=clock, catch_up=catch_up))
    _, _, frames = read(LiveStream(str(kept)))
    assert len(shown) < len(frames) == 30


@pytest.mark.parametrize(
    ("target", "waits"),
    [
        ("rtsp://camera/1", False),
        ("udp://127.0.0.1:1", False),
        ("https://site/a.m3u8", False),
        ("rtsp:rtsp://camera/1", False),
        ("x11grab::0.0", False),
        ("lavfi:testsrc2=size=64x36", True),
        ("-", True),
    ],
)
def test_cameras_and_streams_do_not_wait_for_their_reader(target, waits):
    source = open_live(target, InputOptions(size_wh=(64, 36))).source
    assert (source.catch_up is None) == waits


def test_threads_of_the_decoder_are_as_configured(with_b_frames):
    config = load_config(overrides=["threads.decode=2", "live.latency_ms=70", "live.behind_s=3"])
    assert _open_source(RunRequest(str(with_b_frames), "o.zarr"), config).threads == 2
    session = LiveSession.open("tcp://127.0.0.1:9", config)
    source = session._source._source
    assert (source.threads, source.catch_up) == (2, CatchUp(0.07, 3.0))
    with LiveStream(str(with_b_frames), threads=2).open() as reader:
        assert reader._stream.codec_context.thread_count == 2
        assert len(list(reader)) == 30


def test_what_the_demuxer_fails_with_when_it_is_opened_ends_its_thread(tmp_path):
    path = tmp_path / "noise.ts"
    path.write_bytes(bytes(188 * 100))
    before = threading.active_count()
    with pytest.raises(UnreadableSourceError):
        read(LiveStream(str(path), "mpegts"))
    assert threading.active_count() == before
