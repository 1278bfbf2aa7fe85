"""Live sources: which one reads what, stamps, gaps, reconnection with backoff, recordings."""

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.errors import (
    ConfigError,
    SourceError,
    SourceNotFoundError,
    UnreadableSourceError,
)
from maskstream.pipeline.live.reconnect import ReconnectingSource, ReconnectPolicy
from maskstream.pipeline.sources.arrays import ArraySource, ArrayView
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import LiveArrays, Replay
from maskstream.pipeline.types import Arrival, Frame, SourceInfo, SourceReport
from tests.support.clock import FakeClock
from tests.support.media import moving_shapes, read, write_video

BLACK = np.zeros((36, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("target", "format", "found", "options"),
    [
        ("rtsp://camera/1", None, "rtsp://camera/1", {"rtsp_transport": "tcp"}),
        ("tcp://127.0.0.1:1", "mpegts", "tcp://127.0.0.1:1", {"fflags": "nobuffer"}),
        ("udp://127.0.0.1:1", "mpegts", "udp://127.0.0.1:1", {}),
        ("https://site/a.m3u8", None, "https://site/a.m3u8", {}),
        ("lavfi:testsrc2=size=64x36", "lavfi", "testsrc2=size=64x36", {}),
        ("x11grab::0.0", "x11grab", ":0.0", {}),
        ("rtsp:rtsp://me:a#b@camera/1", "rtsp", "rtsp://me:a%23b@camera/1", {}),
        ("rtsp://me:a#b@camera/1", None, "rtsp://me:a%23b@camera/1", {}),
        ("-", "rawvideo", "pipe:0", {"pixel_format": "rgb24", "video_size": "64x36"}),
    ],
)
def test_a_name_says_how_it_is_read(target, format, found, options):
    live = open_live(target, InputOptions(size_wh=(64, 36)))
    assert isinstance(live.source, LiveStream)
    assert (live.source.format, live.source.target) == (format, found)
    assert live.source.options.items() >= options.items()
    assert live.reopenable == (found != "pipe:0")


@pytest.mark.parametrize(
    ("target", "format"),
    [("-", None), ("mpegts:-", "mpegts"), ("yuv4mpegpipe:pipe:", "yuv4mpegpipe")],
)
def test_standard_input_holds_a_container_if_no_size_is_given(target, format):
    live = open_live(target)
    assert isinstance(live.source, LiveStream)
    assert (live.source.format, live.source.target) == (format, "pipe:0")
    assert not live.reopenable
    with pytest.raises(ConfigError, match="--size"):
        open_live("-", InputOptions(pixel_format="gray"))


@pytest.mark.skipif(sys.platform != "linux", reason="V4L2")
@pytest.mark.parametrize("target", ["0", "/dev/video0"])
def test_cameras_are_v4l2_devices(target):
    source = open_live(target).source
    assert isinstance(source, LiveStream)
    assert (source.format, source.target) == ("v4l2", "/dev/video0")


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("nowhere.mp4", SourceNotFoundError, "no live input nowhere.mp4"),
        ("nonsense:thing", SourceNotFoundError, "nonsense:thing"),
    ],
)
def test_a_name_that_is_none_is_a_sentence(target, error, says):
    with pytest.raises(error, match=says):
        open_live(target)


@pytest.mark.parametrize(
    ("target", "error"),
    [("tcp://127.0.0.1:9", UnreadableSourceError), ("/dev/video97", SourceNotFoundError)],
)
def test_what_does_not_answer_is_a_sentence(target, error):
    with pytest.raises(error, match=target.replace("/", ".")):
        read(open_live(target, InputOptions(stall_s=1)).source)


def test_a_stream_keeps_its_times_and_is_stamped():
    clock = FakeClock()
    with open_live(
        "lavfi:testsrc2=size=64x36:rate=10:duration=0.5", clock=clock
    ).source.open() as r:
        frames = list(r)
    assert [f.pts_s for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert r.info.clock == "stream"
    assert {f.arrival for f in frames} == {Arrival(1000.0, 5000.0)}


@pytest.mark.parametrize(
    ("images", "clock", "pts"),
    [([BLACK, BLACK], "capture", 5000 * 10**9), ([(BLACK, 7), (BLACK, 9)], "stream", 7)],
)
def test_images_have_their_own_stamps_or_the_capture_clocks(images, clock, pts):
    info, _, frames = read(LiveArrays(iter(images), clock=FakeClock()))
    assert info.clock == clock
    assert frames[0].pts == pts
    assert frames[0].time_base == Fraction(1, 10**9)


@pytest.mark.parametrize("images", [[], [BLACK[..., 0]], [BLACK, BLACK[:8]]])
def test_bad_images_are_a_sentence(images):
    with pytest.raises(SourceError):
        read(LiveArrays(iter(images)))


@pytest.mark.parametrize("stamp", [7, np.int64(7), np.uint64(7)])
def test_stamps_are_integers_of_python_or_numpy(stamp):
    _, _, frames = read(LiveArrays(iter([(BLACK, stamp), (BLACK, stamp), (BLACK, stamp + stamp)])))
    assert [frame.pts for frame in frames] == [7, 7, 14]
    assert {type(frame.pts) for frame in frames} == {int}


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([(BLACK, 1.5)], "image 0 is float 1.5; it must be an integer of nanoseconds"),
        ([(BLACK, np.float64(2))], "image 0 is float64"),
        ([(BLACK, "7")], "image 0 is str '7'"),
        ([(BLACK, True)], "image 0 is bool"),
        ([(BLACK, None)], "image 0 is NoneType"),
        ([(BLACK, 7), (BLACK, 7.5)], "image 1 is float"),
        ([(BLACK, 9), (BLACK, 7)], "image 1, 7 ns, is before that of the image before it, 9 ns"),
        ([(BLACK, 7), BLACK], "Image 1 has no timestamp, but the first has one"),
        ([BLACK, (BLACK, 7)], "Image 1 has a timestamp, but the first has none"),
        ([(BLACK, 7, 8)], "Image 0 is 3 values"),
    ],
)
def test_wrong_stamps_are_a_sentence(images, says):
    with pytest.raises(SourceError, match=says):
        read(LiveArrays(iter(images)))


@pytest.mark.parametrize("source", [LiveArrays, ArraySource])
def test_a_program_may_fill_its_array_anew_for_the_next_image(source):
    def filled():
        buffer = np.zeros((36, 64, 3), np.uint8)
        for value in (10, 20, 30):
            buffer[:] = value
            yield buffer

    _, _, frames = read(source(filled()))
    assert [int(frame.rgb().max()) for frame in frames] == [10, 20, 30]


def test_images_are_recorded_without_loss(tmp_path):
    shapes, _ = moving_shapes(4, (36, 64))
    stamped = [(rgb, 10**9 + index * 40_000_000) for index, rgb in enumerate(shapes)]
    file = tmp_path / "kept.mkv"
    read(LiveArrays(iter(stamped), record=file))
    _, _, frames = read(open_live(file, clock=FakeClock()).source)
    assert [f.pts_s for f in frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert all(np.array_equal(f.rgb(), rgb) for f, rgb in zip(frames, shapes, strict=True))


def test_packets_are_recorded_as_they_come_in_a_file_a_connection(tmp_path):
    shapes, _ = moving_shapes(10, (36, 64))
    clip = write_video(tmp_path / "sent.ts", shapes)
    source = LiveStream(str(clip), record=tmp_path / "kept.mkv")
    for _ in range(2):
        _, _, sent = read(source)
    for name in ("kept.mkv", "kept-2.mkv"):
        _, _, kept = read(Replay(LiveStream(str(tmp_path / name)), FakeClock()))
        assert len(kept) == len(sent) == 10
        assert np.array_equal(kept[5].rgb(), sent[5].rgb())


def test_a_file_is_replayed_at_its_own_pace(tmp_path):
    shapes, _ = moving_shapes(4, (36, 64))
    clip = write_video(tmp_path / "clip.mp4", shapes, pts=[0, 100, 150, 400])
    clock = FakeClock()
    _, _, frames = read(open_live(clip, clock=clock).source)
    came = [f.arrival.monotonic_s - 1000 for f in frames]
    assert came == pytest.approx([0, 0.1, 0.15, 0.4])
    with pytest.raises(ConfigError, match="recording already"):
        open_live(clip, record=tmp_path / "again.mkv")


class Flaky:
    """A source whose connections are written down: pauses before frames, or an error."""

    def __init__(self, clock, *connections, size_hw=(36, 64), time_base=Fraction(1, 10)):
        self.clock = clock
        self.left = list(connections)
        self.stop = lambda: None
        self.size_hw = size_hw
        self.time_base = time_base
        self.open_now = False

    @contextmanager
    def open(self):
        if not self.left:
            self.stop()
            raise UnreadableSourceError("nobody is there any more")
        steps = self.left.pop(0)
        if isinstance(steps, Exception):
            raise steps
        assert not self.open_now, "a camera can be opened once at a time"
        self.open_now = True
        yield FlakyReader(self, SourceInfo("flaky", self.size_hw, self.time_base), steps)
        self.open_now = False


class FlakyReader:
    ended = "the cable was pulled"

    def __init__(self, flaky, info, steps):
        self.flaky, self.info, self.report, self.steps = flaky, info, SourceReport(), steps

    def __iter__(self):
        clock = self.flaky.clock
        for number, pause_s in enumerate(self.steps):
            clock.now += pause_s
            arrival = Arrival(clock.monotonic(), clock.unix())
            yield Frame(
                number, number, self.info.time_base, self.info.size_hw, ArrayView(BLACK), arrival
            )


def reconnecting(*connections, policy=None, **options):
    clock = FakeClock()
    flaky = Flaky(clock, *connections, **options)
    source = ReconnectingSource(flaky, reopenable=True, policy=policy, clock=clock)
    flaky.stop = source.stop
    return clock, source, flaky


def test_it_reconnects_with_backoff_numbers_on_and_names_the_gap():
    away = UnreadableSourceError("nobody answers")
    clock, source, _ = reconnecting([0.1] * 3, away, away, away, [0.1] * 2)
    with source.open() as reader:
        frames = list(reader)
    assert [f.index for f in frames] == [0, 1, 2, 3, 4]
    assert [f.pts for f in frames] == [0, 1, 2, 0, 1]  # the source's own
    assert [round(f.arrival.gap_s, 2) for f in frames] == [0, 0, 0, 7.6, 0]
    assert frames[3].arrival.gap_reason == "nobody answers"
    assert clock.waits == [0.5, 1, 2, 4, 0.5]
    assert source.connections == 2


def test_the_wait_is_bounded():
    away = [UnreadableSourceError("no")] * 4
    clock, source, _ = reconnecting([0.1], *away, policy=ReconnectPolicy(1.0, 1.0, 4.0))
    with source.open() as reader:
        list(reader)
    assert clock.waits == [1, 2, 4, 4, 4]
    assert source.trouble == "nobody is there any more"


def test_a_pause_is_a_gap_and_so_is_a_short_break():
    _, source, _ = reconnecting([0.1, 0.1, 3.0], [0.1, 0.1])
    with source.open() as reader:
        frames = list(reader)
    assert [round(f.arrival.gap_s, 2) for f in frames] == [0, 0, 3.0, 0.6, 0]
    assert frames[2].arrival.gap_reason == "no frame arrived"
    assert frames[3].arrival.gap_reason == "the cable was pulled"


def test_a_camera_that_comes_back_otherwise_is_shown_as_before():
    _, source, flaky = reconnecting([0.1], [0.1])
    frames = []
    with source.open() as reader:
        flaky.size_hw, flaky.time_base = (72, 128), Fraction(1, 100)
        frames.extend(reader)
    assert {f.size_hw for f in frames} == {(36, 64)}
    assert {f.time_base for f in frames} == {Fraction(1, 10)}
    assert frames[0].rgb().shape == (36, 64, 3)


def test_a_camera_that_is_held_gives_its_newest_frame_afterwards():
    def steps():
        yield from (0.1, 0.1, 5.0)
        source.resume()
        yield from (0.1, 0.1)

    clock, source, _ = reconnecting(steps())
    source.pause()
    with source.open() as reader:
        frames = list(reader)
    assert [(f.index, f.pts, f.arrival.gap_s) for f in frames] == [(0, 3, 0), (1, 4, 0)]
    assert frames[0].arrival.monotonic_s == pytest.approx(1005.3)
    assert clock.monotonic() > 1005.4


def test_a_recording_that_is_held_can_be_stopped():
    source = ReconnectingSource(Flaky(FakeClock(), [0.1]), reopenable=False, clock=FakeClock())
    source.pause()
    source.stop()
    with source.open() as reader:
        assert list(reader) == []


def test_what_cannot_be_opened_at_first_is_an_error():
    _, source, _ = reconnecting(UnreadableSourceError("no camera"))
    with pytest.raises(UnreadableSourceError, match="no camera"), source.open():
        pass


def test_raw_frames_come_on_standard_input():
    shapes, _ = moving_shapes(5, (36, 64))
    script = (
        "from maskstream.pipeline.sources.live import InputOptions, open_live\n"
        "with open_live('-', InputOptions(size_wh=(64, 36))).source.open() as reader:\n"
        "    for frame in reader:\n"
        "        print(reader.info.clock, frame.index, int(frame.rgb().sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=shapes.tobytes(), capture_output=True, timeout=120
    )
    told = done.stdout.decode().splitlines()
    assert told == [f"capture {i} {int(rgb.sum())}" for i, rgb in enumerate(shapes)], done.stderr


def test_mpeg_ts_is_read_over_udp(tmp_path):
    shapes, _ = moving_shapes(40, (36, 64))
    clip = write_video(tmp_path / "sent.ts", shapes, options={"g": "5"}).read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    over = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while True:
                for start in range(0, len(clip), 7 * 188):
                    sender.sendto(clip[start : start + 7 * 188], ("127.0.0.1", port))
                    if over.wait(0.001):
                        return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with open_live(f"udp://127.0.0.1:{port}").source.open() as reader:
            came = [frame.rgb().shape for frame, _ in zip(reader, range(20), strict=False)]
    finally:
        over.set()
        thread.join()
    assert came == [(36, 64, 3)] * 20


def test_a_size_that_changes_within_a_stream_is_shown_at_the_first_one(tmp_path):
    parts = [
        write_video(tmp_path / f"{height}.ts", moving_shapes(6, (height, 2 * height))[0])
        for height in (36, 54)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    with LiveStream(str(both), "mpegts").open() as reader:
        shapes = [frame.rgb(reader.info.size_hw).shape for frame in reader]
    assert shapes == [(36, 72, 3)] * 12
