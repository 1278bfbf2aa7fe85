"""Recordings of live inputs: playable in every container that is taken, or refused beforehand."""

import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.live import open_live
from maskstream.pipeline.sources.stream import LiveStream
from maskstream.pipeline.sources.timed import LiveArrays
from maskstream.pipeline.sources.video import ONE_THREAD
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
