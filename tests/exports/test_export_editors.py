"""Videos for editors: the source's frames, times, colors and sound, with the masks as alpha."""

import resource
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from maskstream.pipeline.errors import SourceError, StoreError
from maskstream.pipeline.exports.color import Color, image_of, planes
from maskstream.pipeline.exports.editor_videos import FFV1, H264, PRORES, VP9, Movie
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.movie import MovieWriter
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.sources import VideoFile, open_source
from maskstream.pipeline.sources.video_view import ONE_THREAD
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult, ObjectResult
from maskstream.trackers.state import TrackState
from tests.support.media import moving_shapes, read, write_clip, write_video

SIZE = (96, 128)
COUNT = 8
PTS_MS = (0, 40, 55, 75, 200, 240, 1000, 1040)
MOVIES = [
    name for name, wanted in FORMATS.items() if wanted.suffix in (".mov", ".mp4", ".mkv", ".webm")
]
IN_ALPHA = ["prores", "vp9", "ffv1"]
EXACT_TIMES = (".mov", ".mp4")


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(COUNT, SIZE)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, shapes):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", shapes[0], pts_ms=PTS_MS)


@pytest.fixture(scope="module")
def store(clip, shapes):
    return masks_of(clip, shapes[1])


def masks_of(video: Path, masks: np.ndarray) -> MaskStore:
    """A store beside the video: its frames with these label maps [T, H, W]."""
    place = video.with_suffix(".zarr")
    info, _, frames = read(open_source(video))
    written = MaskStoreWriter(place, info=info, attributes={})
    for frame, labels in zip(frames, masks.astype(np.uint16), strict=True):
        objects = tuple(found_on(labels, int(i)) for i in np.unique(labels) if i)
        written.append(FrameResult(frame.index, frame.pts, frame.time_base, False, labels, objects))
    written.close(complete=True)
    return MaskStore(place)


def found_on(labels: np.ndarray, object_id: int) -> ObjectResult:
    mask = labels == object_id
    x, y, width, height = map(float, cv2.boundingRect(mask.view(np.uint8)))
    box = (x, y, x + width, y + height)
    return ObjectResult(object_id, box, 0.9, TrackState.TRACKED, int(mask.sum()))


def exported(store, tmp_path, name, **options) -> Path:
    place = tmp_path / f"{name}{FORMATS[name].suffix}"
    if name == "background":
        options.setdefault("background", "#204080")
    export_store(store, place, ExportChoice(name, **options))
    return place


def images(path: Path) -> list[VideoFrame]:
    """All pictures of a file, VP9 with its alpha."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        vp9 = stream.codec_context.name == "vp9"
        decoder = av.CodecContext.create("libvpx-vp9", "r") if vp9 else stream.codec_context
        found = []
        for packet in container.demux(stream):
            for image in decoder.decode(packet):
                image.time_base = image.time_base or stream.time_base
                found.append(image)
        return found


def times_s(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(p.pts * stream.time_base for p in container.demux(stream) if p.size)


def plane(image: VideoFrame, index: int) -> np.ndarray:
    """A plane, 0 to 1."""
    bits = image.format.components[index].bits
    part = image.planes[index]
    values = np.frombuffer(part, np.uint8 if bits <= 8 else "<u2").reshape(part.height, -1)
    return values[:, : part.width] / float((1 << bits) - 1)


def alpha(image: VideoFrame) -> np.ndarray:
    return plane(image, 3)


def rgb(image: VideoFrame, matrix: int = 1) -> np.ndarray:
    """Displayed colors, 0 to 255, of every format by the same way."""
    if image.format.is_rgb:
        return image.to_ndarray(format="rgb24").astype(float)
    full = image.format.name.startswith("yuvj") or image.color_range == 2
    matrices = {"src_colorspace": matrix, "dst_colorspace": matrix}
    for pix_fmt, source_range, made_range in (
        ("yuv444p16le", 1 + full, 1 + full),
        ("rgb24", 1 + full, 2),
    ):
        image = VideoReformatter().reformat(
            image,
            format=pix_fmt,
            src_color_range=source_range,
            dst_color_range=made_range,
            **matrices,
            **ONE_THREAD,
        )
    return image.to_ndarray().astype(float)


def untouched_by(name: str, labels: np.ndarray) -> np.ndarray:
    """Where an export shows the source's pixels, away from edges and what is drawn."""
    if name != "overlay":
        inside = (labels > 0).astype(np.uint8)
        return cv2.erode(inside, np.ones((9, 9), np.uint8)) > 0
    drawn = np.zeros(labels.shape, np.uint8)
    for object_id in (1, 2):
        x, y, width, height = cv2.boundingRect((labels == object_id).astype(np.uint8))
        drawn[max(0, y - 24) : y + height, x : x + max(width, 70)] = 1
    return cv2.dilate(drawn, np.ones((17, 17), np.uint8)) == 0


@pytest.mark.parametrize("name", MOVIES)
def test_frames_have_the_sources_number_size_and_times(store, tmp_path, name):
    place = exported(store, tmp_path, name)
    assert [p.name for p in tmp_path.iterdir()] == [place.name]
    read_s = times_s(place)
    assert len(read_s) == COUNT
    tolerance_s = Fraction(0) if place.suffix in EXACT_TIMES else Fraction(1, 2000)
    for found, truth in zip(read_s, PTS_MS, strict=True):
        assert abs(found - Fraction(truth, 1000)) <= tolerance_s
    with av.open(str(place)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == SIZE
        assert container.duration / av.time_base == pytest.approx(1.08, abs=0.03)


@pytest.mark.parametrize("name", IN_ALPHA)
def test_alpha_is_the_mask_of_the_chosen_objects(store, shapes, tmp_path, name):
    place = exported(store, tmp_path, name, objects="2")
    for image, labels in zip(images(place), shapes[1], strict=True):
        read, truth = alpha(image), labels == 2
        if name == "vp9":
            assert np.mean((read > 0.5) == truth) > 0.999
        else:
            assert np.array_equal(read, truth)


def test_alpha_of_all_objects_is_their_union(store, shapes, tmp_path):
    first, *_ = images(exported(store, tmp_path, "ffv1"))
    assert np.array_equal(alpha(first), shapes[1][0] > 0)


@pytest.mark.parametrize("name", ["matte", "matte-lossless"])
def test_matte_is_white_on_black(store, shapes, tmp_path, name):
    for image, labels in zip(images(exported(store, tmp_path, name)), shapes[1], strict=True):
        gray = plane(image, 0) * 255
        if name == "matte":
            assert image.format.name == "yuv420p"
            assert np.abs(gray - np.where(labels > 0, 235, 16)).max() < 10
        else:
            assert np.array_equal(gray, np.where(labels > 0, 255, 0))


# Colors


def round_trip(encoding, pix_fmt: str, clip: Path, path: Path) -> list[VideoFrame]:
    """What the codec itself does to the source's pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoding.codec, rate=25, options=dict(encoding.options))
        stream.height, stream.width, stream.pix_fmt = *SIZE, pix_fmt
        for index, image in enumerate(images(clip)):
            made = image.reformat(
                format=pix_fmt,
                src_colorspace=1,
                dst_colorspace=1,
                src_color_range=1,
                dst_color_range=1,
                **ONE_THREAD,
            )
            made.pts, made.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return images(path)


CODECS = {
    "prores": (PRORES, "yuva444p10le", ".mov"),
    "vp9": (VP9, "yuva420p", ".webm"),
    "ffv1": (FFV1, "yuva420p", ".mkv"),
    "green": (H264, "yuv420p", ".mp4"),
    "background": (H264, "yuv420p", ".mp4"),
    "overlay": (H264, "yuv420p", ".mp4"),
}


@pytest.mark.parametrize("name", CODECS)
def test_untouched_pixels_differ_by_no_more_than_the_codecs_round_trip(
    store, clip, shapes, tmp_path, name
):
    encoding, pix_fmt, suffix = CODECS[name]
    reference = round_trip(encoding, pix_fmt, clip, tmp_path / f"reference{suffix}")
    found = images(exported(store, tmp_path, name))
    worst = []
    for ours, theirs, source, labels in zip(found, reference, images(clip), shapes[1], strict=True):
        untouched = untouched_by(name, labels)
        truth = rgb(source)
        error, usual = (np.abs(rgb(p) - truth)[untouched] for p in (ours, theirs))
        worst.append((error.mean() - usual.mean(), error.max() - usual.max()))
    mean, most = np.max(worst, axis=0)
    assert mean <= (0 if name == "ffv1" else 0.6)
    assert most <= (0 if name == "ffv1" else 24)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuva420p", "yuv444p", "yuva444p10le"])
def test_painting_over_an_image_leaves_the_decoders_alone(clip, pix_fmt):
    """Later pictures are predicted from earlier ones: what is painted there would come back."""
    truth = [frame.rgb() for frame in read(VideoFile(clip))[2]]
    with VideoFile(clip).open() as reader:
        for frame, expected in zip(reader, truth, strict=True):
            for painted in planes(image_of(frame, pix_fmt, Color())):
                painted[:] = 7
            assert np.array_equal(frame.rgb(), expected)


def test_ffv1_keeps_the_very_numbers_of_the_source(store, clip, tmp_path):
    for ours, source in zip(images(exported(store, tmp_path, "ffv1")), images(clip), strict=True):
        assert ours.format.name == "yuva420p"
        for index in range(3):
            assert np.array_equal(plane(ours, index), plane(source, index))


@pytest.mark.parametrize("name", [*IN_ALPHA, "green", "overlay"])
@pytest.mark.parametrize(
    ("color", "pix_fmt"),
    [
        ((1, 1, 1, 1), "yuv420p"),
        ((1, 6, 6, 6), "yuv420p"),
        ((2, 5, 5, 6), "yuvj420p"),
        ((1, 9, 9, 16), "yuv420p10le"),
        ((1, 2, 2, 2), "yuv420p"),
    ],
)
def test_colors_are_tagged_as_in_the_source_and_look_the_same(
    tmp_path, shapes, name, color, pix_fmt
):
    clip = write_clip(
        tmp_path / "tagged.mp4", shapes[0][:2], color=color, pix_fmt=pix_fmt, sound=""
    )
    source = images(clip)[0]
    place = exported(masks_of(clip, shapes[1][:2]), tmp_path, name)
    with av.open(str(place)) as container:
        stream = container.streams.video[0].codec_context
        told = (stream.color_range, stream.colorspace, stream.color_primaries, stream.color_trc)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0].codec_context
        expected = [stream.color_range, stream.colorspace, stream.color_primaries, stream.color_trc]
    if name in ("prores", "vp9"):  # say limited where nothing is said, which is the same
        expected[0] = expected[0] or 1
    if name == "prores":  # has no full range, and one name for BT.709's curve
        expected[0] = 1
        expected[3] = 1 if expected[3] == 6 else expected[3]
    assert [*map(int, told)] == [*map(int, expected)]
    matrix = {2: 5, 6: 5}.get(color[1], color[1])
    untouched = untouched_by(name, shapes[1][0])
    off = rgb(images(place)[0], matrix) - rgb(source, matrix)
    assert np.abs(off[untouched].mean(axis=0)).max() < 1.0  # no shift of the colors
    assert np.abs(off[untouched]).mean() < 4


def test_ten_bits_stay_ten_bits(tmp_path, shapes):
    clip = write_clip(tmp_path / "deep.mp4", shapes[0][:2], pix_fmt="yuv420p10le", sound="")
    store, source = masks_of(clip, shapes[1][:2]), images(clip)[0]
    for name in ("prores", "ffv1"):
        ours = images(exported(store, tmp_path, name))[0]
        assert ours.format.components[0].bits >= 10
        error = np.abs(plane(ours, 0) - plane(source, 0)).max()
        assert error <= (0 if name == "ffv1" else 0.012)


def test_rgb_sources_stay_rgb_in_ffv1(tmp_path, shapes):
    clip = write_video(tmp_path / "rgb.mkv", shapes[0][:2], codec="ffv1", pix_fmt="bgr0")
    first = images(exported(masks_of(clip, shapes[1][:2]), tmp_path, "ffv1"))[0]
    assert first.format.name == "bgra"
    pixels = first.to_ndarray()
    assert np.array_equal(pixels[..., 2::-1], shapes[0][0])
    assert np.array_equal(pixels[..., 3] > 0, shapes[1][0] > 0)


# What the picture is


@pytest.mark.parametrize(("rotation", "aspect"), [(90, None), (270, None), (0, Fraction(4, 3))])
def test_image_is_turned_and_stretched_as_the_reader_does(tmp_path, shapes, rotation, aspect):
    clip = write_video(
        tmp_path / "turned.mp4", shapes[0][:2], rotation=rotation, sample_aspect=aspect
    )
    _, _, frames = read(VideoFile(clip))
    height, width = frames[0].size_hw
    masks = np.zeros((2, height, width), np.uint8)
    masks[:, : height // 2, : width // 3] = 1
    store = masks_of(clip, masks)
    for name in (*IN_ALPHA, "green"):
        first = images(exported(store, tmp_path, name))[0]
        even = name == "green"
        assert (first.height, first.width) == (
            (height - height % 2, width - width % 2) if even else (height, width)
        )
        shown = slice(4, height // 2 - 4), slice(4, width // 3 - 4)
        assert np.abs(rgb(first, 5)[shown] - frames[0].rgb()[shown]).mean() < 6
        if not even:
            assert np.mean((alpha(first) > 0.5) == masks[0]) > 0.999


def test_odd_sizes(tmp_path):
    frames, masks = moving_shapes(2, (63, 95))
    clip = write_video(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="yuv420p")
    store = masks_of(clip, masks)
    for name in MOVIES:
        first = images(exported(store, tmp_path, name))[0]
        even = FORMATS[name].suffix == ".mp4"
        assert (first.height, first.width) == ((62, 94) if even else (63, 95))


def test_green_screen_and_backgrounds(store, shapes, tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :40], image[:, 40:] = (0, 0, 200), (0, 200, 0)  # BGR: red, green
    cv2.imwrite(str(tmp_path / "back.png"), image)
    outside = cv2.dilate((shapes[1][0] > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    left, right = outside.copy(), outside.copy()
    left[:, 60:], right[:, :68] = False, False
    cases = {
        "green": [(outside, (0, 177, 64))],
        "#ff8000": [(outside, (255, 128, 0))],
        "white": [(outside, (255, 255, 255))],
        str(tmp_path / "back.png"): [(left, (200, 0, 0)), (right, (0, 200, 0))],
    }
    for background, expected in cases.items():
        options = {} if background == "green" else {"background": background}
        name = "green" if background == "green" else "background"
        found = rgb(images(exported(store, tmp_path, name, overwrite=True, **options))[0])
        for where, color in expected:
            assert np.abs(found[where].mean(axis=0) - color).max() < 4, background


def test_blurred_background_has_no_glow_of_the_object(tmp_path):
    frames = np.full((1, *SIZE, 3), 40, np.uint8)
    frames[0, ::8] = 60
    frames[0, 30:60, 40:80] = 250
    masks = np.zeros((1, *SIZE), np.uint8)
    masks[0, 29:61, 39:81] = 1
    clip = write_clip(tmp_path / "flat.mp4", frames, sound="")
    store = masks_of(clip, masks)
    found = rgb(images(exported(store, tmp_path, "background", background="blur:6"))[0])
    ground = found[masks[0] == 0]
    assert ground.max() < 75  # not lit by the object
    assert ground.std() < 0.5 * frames[0][masks[0] == 0].std()  # and blurred
    assert np.abs(found[34:56, 44:76] - 250).max() < 4


def test_overlay_draws_only_the_chosen_objects(store, clip, shapes, tmp_path):
    found = images(exported(store, tmp_path, "overlay", objects="1"))[0]
    changed = np.abs(rgb(found) - rgb(images(clip)[0])).mean(axis=-1)
    first, second = (
        cv2.erode((shapes[1][0] == i).astype(np.uint8), np.ones((5, 5))) > 0 for i in (1, 2)
    )
    assert changed[first].mean() > 20
    second[:30] = False
    assert changed[second].mean() < 5


# Sound


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


def samples(path: Path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", stream.rate)
        frames = [f for decoded in container.decode(audio=0) for f in resampler.resample(decoded)]
        return np.concatenate([f.to_ndarray()[0] for f in frames]), stream.rate


@pytest.mark.parametrize("name", ["prores", "matte", "green", "ffv1", "matte-lossless"])
def test_sound_is_copied_packet_by_packet(store, clip, tmp_path, name):
    source, found = packets(clip), packets(exported(store, tmp_path, name))
    if FORMATS[name].suffix == ".mkv":  # what the player skips at the start is left out
        source = [(time, data) for time, data in source if time >= 0]
    assert [data for _, data in found] == [data for _, data in source]
    for (time, _), (truth, _) in zip(found, source, strict=True):
        assert abs(time - truth) <= Fraction(1, 1000)


@pytest.mark.parametrize(
    ("name", "suffix", "sound", "codec"),
    [
        ("vp9", ".mp4", "aac", "opus"),
        ("vp9", ".mkv", "libopus", "opus"),
        ("prores", ".mkv", "libopus", "pcm_s16le"),
        ("prores", ".mkv", "pcm_s16le", "pcm_s16le"),
        ("green", ".mkv", "pcm_s16le", "aac"),
        ("ffv1", ".mkv", "flac", "flac"),
    ],
)
def test_sound_is_put_into_what_the_file_takes(tmp_path, shapes, name, suffix, sound, codec):
    clip = write_clip(tmp_path / f"clip{suffix}", shapes[0], sound=sound, sound_s=0.32)
    place = exported(masks_of(clip, shapes[1]), tmp_path, name)
    with av.open(str(place)) as container:
        assert container.streams.audio[0].codec_context.name == codec
    wave, rate = samples(place)
    assert len(wave) / rate == pytest.approx(0.32, abs=0.06)
    middle = wave[rate // 20 : rate // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * rate / len(middle) == pytest.approx(440, abs=8)


def test_a_part_begins_at_zero_with_its_own_sound(store, clip, tmp_path):
    place = exported(store, tmp_path, "prores", start="4", end="6")  # up to when frame 6 is shown
    assert times_s(place) == [Fraction(0), Fraction(40, 1000)]
    first_s, end_s = Fraction(PTS_MS[4], 1000), Fraction(PTS_MS[6], 1000)
    source = [(t, data) for t, data in packets(clip) if first_s <= t < end_s]
    assert len(source) > 3
    found = packets(place)
    assert [data for _, data in found] == [data for _, data in source]
    for (time, _), (truth, _) in zip(found, source, strict=True):
        assert abs(time + Fraction(1, 5) - truth) < Fraction(1, 1000)


def test_images_without_times_count_at_25_a_second(tmp_path, shapes):
    folder = tmp_path / "shots"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index + 7:03d}.png"), shapes[0][index][..., ::-1])
    store = masks_of(folder, shapes[1][:3])
    place = exported(store, tmp_path, "prores")
    assert times_s(place) == [Fraction(i, 25) for i in range(3)]
    inside = cv2.erode((shapes[1][0] > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(rgb(images(place)[0])[inside] - shapes[0][0][inside]).mean() < 3


# What goes wrong


@pytest.mark.parametrize("name", [n for n, wanted in FORMATS.items() if wanted.needs_video])
def test_equal_masks_give_equal_files(store, tmp_path, name):
    content = []
    for run in "ab":
        (tmp_path / run).mkdir()
        place = exported(store, tmp_path / run, name, end="3")
        files = [place] if place.is_file() else sorted(place.iterdir())
        content.append([file.read_bytes() for file in files])
    assert content[0] == content[1]


def test_video_that_is_gone_or_another_one_is_refused(cli, store, clip, shapes, tmp_path):
    gone = tmp_path / "gone.mp4"
    write_clip(gone, shapes[0], sound="")
    lone = masks_of(gone, shapes[1])
    gone.unlink()
    small = write_clip(tmp_path / "small.mp4", shapes[0][:, :48, :64], sound="")
    short = write_clip(tmp_path / "short.mp4", shapes[0][:4], sound="", pts_ms=PTS_MS[:4])
    almost = write_clip(tmp_path / "almost.mp4", shapes[0][:7], sound="", pts_ms=PTS_MS[:7])
    faster = write_clip(tmp_path / "faster.mp4", shapes[0], sound="")
    moved_ms = (0, 40, 55, 75, 900, 940, 1000, 1040)
    retimed = write_clip(tmp_path / "retimed.mp4", shapes[0], sound="", pts_ms=moved_ms)
    (tmp_path / "text.mp4").write_text("no video")
    cases = [
        (lone.path, [], "does not exist: give its new path with --source"),
        (store.path, ["--video", small], "is 64x48, but the masks are 128x96"),
        (store.path, ["--source", short], "has 4 frames, but the video of the masks had 8"),
        (store.path, ["--source", almost], "has no frame 7"),
        (store.path, ["--source", faster], "it is not the video the masks were made from"),
        (store.path, ["--source", retimed], "it is not the video the masks were made from"),
        (store.path, ["--source", tmp_path / "text.mp4"], "cannot be opened as a video"),
    ]
    out = tmp_path / "out"
    for path, options, sentence in cases:
        code, _, err = cli("export", path, "--format", "prores", "-o", out / "o.mov", *options)
        assert code == 1, sentence
        assert sentence in err
        assert not list(out.iterdir())
    code, _, err = cli(
        "export", store.path, "--format", "prores", "-o", out / "o.mov", "--video", clip
    )
    assert code == 0, err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "davis", "--grow", "2"], "takes masks unchanged"),
        (["--format", "prores", "--background", "green"], "has no background"),
        (["--format", "background"], "needs --background"),
        (["--format", "background", "--background", "#12"], "is not a color"),
        (["--format", "background", "--background", "blur:no"], "is not a blur"),
        (["--format", "background", "--background", "blur:-3"], "is not a blur"),
        (["--format", "background", "--background", "no.png"], "no.png"),
        (["--format", "background", "--background", "chartreuse"], "is not a background"),
        (["--format", "green", "--smooth", "4"], "odd number"),
        (["--format", "green", "--feather=-1"], "0 or more"),
        (["--format", "green", "--grow", "nan"], "finite"),
        (["--format", "prores", "-o", "x.mp4"], "ends in .mov"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_writes_nothing(cli, store, tmp_path, options, sentence):
    place = tmp_path / ("o.mp4" if "-o" not in options else options.pop())
    code, _, err = cli("export", store.path, "-o", place, *[o for o in options if o != "-o"])
    assert code == 1
    assert sentence in err.replace("\n", " ")
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_ctrl_c_leaves_no_file_and_keeps_the_old_one(cli, store, tmp_path, monkeypatch):
    place, write = tmp_path / "o.mov", Movie.write
    place.write_bytes(b"mine")
    command = ["export", store.path, "--format", "prores", "-o", place]
    code, _, err = cli(*command)
    assert code == 1
    assert "--overwrite" in err

    def stop(self, frame):
        if frame.row == 4:
            raise KeyboardInterrupt
        write(self, frame)

    monkeypatch.setattr(Movie, "write", stop)
    assert cli(*command, "--overwrite")[0] == 130
    assert [p.name for p in tmp_path.iterdir()] == ["o.mov"]
    assert place.read_bytes() == b"mine"


@pytest.mark.parametrize("name", MOVIES)
def test_full_disk_is_a_sentence_and_leaves_no_file(store, tmp_path, name):
    """Files may not grow beyond a few hundred bytes: the system refuses as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            exported(store, tmp_path, name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", MOVIES)
def test_what_reads_back_otherwise_is_reported(store, tmp_path, monkeypatch, name):
    """The middle of the file is lost before it is read: the export fails."""
    finish = MovieWriter.finish

    def finish_and_damage(self, clock, *, to_the_end):
        finish(self, clock, to_the_end=to_the_end)
        path = self._path
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            spots = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        for position, size in spots[2:5]:
            data[position + size // 4 : position + size] = bytes(size - size // 4)
        path.write_bytes(data)

    monkeypatch.setattr(MovieWriter, "finish", finish_and_damage)
    with pytest.raises(StoreError, match="read back"):
        exported(store, tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_store_without_the_video_still_gives_png_mattes(store, shapes, tmp_path):
    gone = replace(store.source, name="gone.mp4")
    store._header = replace(store._header, source=gone)
    try:
        place = tmp_path / "m"
        export_store(store, place, ExportChoice("png-matte", objects="1"))
        matte = cv2.imread(str(place / "gone_1_000000.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(matte > 0, shapes[1][0] == 1)
        with pytest.raises(SourceError, match="--source"):
            export_store(store, tmp_path / "v.mov", ExportChoice("prores"))
    finally:
        store._header = replace(store._header, source=replace(gone, name=store.source.name))
