"""Recordings of live inputs: playable in every container that is taken, or refused beforehand."""

import json
from queue import Queue

import av
import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError, SourceError
from maskstream.pipeline.live.session import CallbackSink, LiveSession
from maskstream.pipeline.sources.arrays import ArraySource
from maskstream.pipeline.sources.live import open_live
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import LiveArrays
from maskstream.pipeline.sources.video_view import ONE_THREAD
from tests.support.live_runs import PATIENT
from tests.support.media import moving_shapes, read, write_video

SIZE = (36, 64)


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(6, SIZE)[0]


FORMATS = {
    "rgb24": "bgr0",
    "bgra": "bgr0",
    "rgb565le": "bgr0",
    "rgb48le": "gbrp16le",
    "monob": "gray",
    "gray": "gray",
    "gray10le": "gray10le",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "nv12": "yuv420p",
    "yuv420p": "yuv420p",
    "yuv411p": "yuv411p",
    "yuv444p10le": "yuv444p10le",
    "p010le": "yuv420p10le",
}


def is_same(kept, sent):
    """Whether a kept frame has the values of the one that was sent, in its own pixel format."""
    stored, source = kept.view.image, sent.view.image
    wanted = source.reformat(format=stored.format.name, **ONE_THREAD)
    return np.array_equal(*(image.to_ndarray(format="rgb24") for image in (stored, wanted)))


@pytest.mark.parametrize(("sent", "kept"), FORMATS.items())
def test_raw_video_is_recorded_without_loss(tmp_path, sent, kept):
    source = f"testsrc2=size=64x36:rate=10:duration=0.5,format={sent}"
    _, _, came = read(LiveStream(source, "lavfi", record=tmp_path / "kept.mkv"))
    info, _, played = read(LiveStream(str(tmp_path / "kept.mkv")))
    assert info.codec == "ffv1"
    assert [f.pts_s for f in played] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {f.view.image.format.name for f in played} == {kept}
    assert all(is_same(*both) for both in zip(played, came, strict=True))


def test_raw_frames_of_a_file_and_of_a_pipe_are_recorded(tmp_path, shapes):
    nut = write_video(tmp_path / "sent.nut", shapes, codec="rawvideo", pix_fmt="yuyv422")
    _, _, came = read(LiveStream(str(nut), record=tmp_path / "nut.mkv"))
    _, _, played = read(LiveStream(str(tmp_path / "nut.mkv")))
    assert all(is_same(*both) for both in zip(played, came, strict=True))
    raw = tmp_path / "sent.rgb"
    raw.write_bytes(shapes.tobytes())
    options = {"video_size": "64x36", "pixel_format": "rgb24"}
    read(LiveStream(str(raw), "rawvideo", options, has_timestamps=False, record=tmp_path / "a.mkv"))
    _, _, played = read(LiveStream(str(tmp_path / "a.mkv")))
    assert all(np.array_equal(f.rgb(), rgb) for f, rgb in zip(played, shapes, strict=True))


@pytest.mark.parametrize(
    ("sent", "codec", "kept"),
    [
        ("a.mp4", "libx264", "kept.mkv"),
        ("a.mp4", "libx264", "kept.ts"),
        ("a.ts", "libx264", "kept.ts"),
        ("a.mp4", "libx265", "kept.ts"),
        ("a.ts", "mpeg2video", "kept.ts"),
        ("a.mp4", "mpeg4", "kept.mkv"),
        ("a.mkv", "mjpeg", "kept.mkv"),
        ("a.mkv", "libvpx-vp9", "kept.mkv"),
    ],
)
def test_packets_are_playable_where_they_are_copied(tmp_path, shapes, sent, codec, kept):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clip = write_video(tmp_path / sent, shapes, codec=codec, pix_fmt=pixels)
    _, _, frames = read(LiveStream(str(clip), record=tmp_path / kept))
    _, report, played = read(LiveStream(str(tmp_path / kept)))
    assert len(played) == len(frames)
    assert report.corrupt_packets == 0
    assert np.array_equal(played[-1].rgb(), frames[-1].rgb())


@pytest.mark.parametrize("name", ["kept.avi", "kept.nut", "kept.mp4", "kept", "nowhere/kept.mkv"])
def test_a_recording_that_would_not_be_playable_is_refused_before_the_run(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be recorded to"):
        open_live("lavfi:testsrc2", record=tmp_path / name)


def test_what_mpeg_ts_does_not_hold_is_refused_before_the_run(tmp_path, shapes):
    clip = write_video(tmp_path / "a.mp4", shapes, codec="mpeg4")
    with pytest.raises(ConfigError, match=r"ends in \.mkv"):
        read(LiveStream(str(clip), record=tmp_path / "kept.ts"))
    with pytest.raises(ConfigError, match=r"ends in \.mkv"):
        read(LiveArrays(iter(shapes), record=tmp_path / "kept.ts"))
    with pytest.raises(ConfigError, match=r"ends in \.mkv"):
        read(LiveStream("testsrc2=size=64x36:duration=1", "lavfi", record=tmp_path / "kept.ts"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_recording_of_a_source_that_was_left_behind_is_finished(tmp_path, shapes):
    kept, come = tmp_path / "kept.mkv", Queue()
    for number, rgb in enumerate(shapes):
        come.put((rgb, number * 10**8))
    config = load_config(overrides=[*PATIENT, "seeding.enabled=false", "live.stop_s=0.1"])
    session = LiveSession.open(iter(come.get, None), config, record=kept)
    last = len(shapes) - 1
    status = session.run(
        lambda info: [CallbackSink(lambda live: live.frame.index == last and session.stop())]
    )
    with av.open(str(kept)) as finished:
        assert finished.duration is not None  # which the end of the file tells
        assert len(list(finished.decode(video=0))) == len(shapes)
    come.put((shapes[0], last * 10**8))  # the thread that was left behind goes on, and ends
    come.put(None)
    assert status.abandoned == ("source",)
    assert status.source["recording"] == "encoded"
    assert json.loads(json.dumps(status.to_json()))["source"]["recording"] == "encoded"


@pytest.mark.parametrize(("codec", "how"), [("libx264", "copied"), ("rawvideo", "encoded")])
def test_how_a_stream_is_recorded_is_known(tmp_path, shapes, codec, how):
    clip = write_video(tmp_path / "sent.mkv", shapes, codec=codec)
    source = LiveStream(str(clip), record=tmp_path / "kept.mkv")
    assert source.recordings.how == ""
    read(source)
    assert source.recordings.how == how


def test_the_command_says_that_a_recording_is_encoded(cli, tmp_path):
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    source = "lavfi:testsrc2=size=64x36:rate=10"
    options = ["--no-seed", "--duration", "0.3s", "--record", tmp_path / "kept.mkv", *settings]
    code, _, err = cli("live", source, *options)
    assert code == 0
    assert "recording is encoded without loss" in err.splitlines()[-1]


@pytest.mark.parametrize("source", [LiveArrays, ArraySource])
def test_arrays_that_are_compared_with_none_are_a_sentence(shapes, source):
    come: Queue = Queue()
    come.put(shapes[0])
    with pytest.raises(SourceError, match="use a generator"):
        read(source(iter(come.get, None)))


def test_an_error_of_a_programs_own_iterator_stays_its_own(shapes):
    def images():
        yield shapes[0]
        raise ValueError("the camera's own")

    with pytest.raises(ValueError, match="the camera's own"):
        read(LiveArrays(images()))
