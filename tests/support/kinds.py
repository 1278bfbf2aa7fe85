"""Kinds of video files: container, codec, order of frames, holes, joints, edit lists.

Every picture has its number drawn into it, in stripes that survive compression.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.frame import VideoFrame

from maskstream.pipeline.sources.video_view import ONE_THREAD
from maskstream.pipeline.types import RgbImage

COUNT = 100
SIZE_HW = 48, 64
_BITS = 8


def numbered(number: int, size_hw: tuple[int, int] = SIZE_HW) -> RgbImage:
    """A picture uint8 [H, W, 3] with its number in black and white stripes, over moving texture."""
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin((columns + 3 * number) / 5) * np.cos((rows - 2 * number) / 7)
    image = np.repeat(waves[..., None], 3, axis=2).astype(np.uint8)
    image[..., 2] = 255 - image[..., 0]
    for bit in range(_BITS):
        stripe = slice(bit * width // _BITS, (bit + 1) * width // _BITS)
        image[: height // 2, stripe] = 255 * (number >> bit & 1)
    return image


def number_in(image: RgbImage) -> int:
    """The number that is drawn into a picture."""
    height, width = image.shape[:2]
    luma = image[height // 8 : 3 * height // 8].mean(axis=(0, 2))
    ones = luma.reshape(_BITS, width // _BITS).mean(axis=1) > 127
    return int(sum(1 << bit for bit in range(_BITS) if ones[bit]))


@contextmanager
def ordinary_schedule() -> Iterator[None]:
    """Undo what SVT-AV1 does where it may: it makes the thread that opens it a real-time one.

    Whatever that thread starts later inherits the policy; a browser among them starves the machine.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    ticks: list[int] | None = None,
    start: int = 0,
    count: int = COUNT,
    size_hw: tuple[int, int] = SIZE_HW,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    edit: Callable[[list[Packet]], list[Packet]] | None = None,
) -> Path:
    """Write `count` numbered pictures.

    ticks: times of the pictures in milliseconds. start: time of the first, in frames. edit: what
    is done to the packets before they are written.
    """
    base = Fraction(1, rate) if ticks is None else Fraction(1, 1000)
    with (
        ordinary_schedule(),
        av.open(str(path), "w", format=container, container_options=muxing or {}) as output,
    ):
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = size_hw
        stream.codec_context.time_base = base
        packets: list[Packet] = []
        for number in range(count):
            picture = VideoFrame.from_ndarray(numbered(number, size_hw), format="rgb24")
            picture = picture.reformat(format=pix_fmt, **ONE_THREAD)
            picture.pts = start + number if ticks is None else ticks[number]
            picture.time_base = base
            packets += stream.encode(picture)
        packets += stream.encode(None)
        output.mux(edit(packets) if edit else packets)
    return path


def _x264(keyframes: int = 12, b_frames: int = 3, more: str = "") -> dict[str, str]:
    params = f"keyint={keyframes}:min-keyint={keyframes}:scenecut=0:bframes={b_frames}:b-adapt=0"
    return {"preset": "veryfast", "crf": "12", "x264-params": params + more}


def _x265(b_frames: int = 3, *, open_gop: bool = False) -> dict[str, str]:
    params = (
        f"keyint=12:min-keyint=12:scenecut=0:bframes={b_frames}:b-adapt=0:crf=12:"
        f"open-gop={int(open_gop)}:log-level=none"
    )
    return {"preset": "ultrafast", "x265-params": params}


_MPEG2 = {"g": "12", "bf": "2", "b": "4000000"}
_MPEG4 = {"g": "12", "b": "2000000"}
_VP = {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}
_AV1 = {"preset": "12", "g": "12", "svtav1-params": "lp=1"}


def joined(path: Path, *parts: Path) -> Path:
    """Files one after another, as `cat` joins recordings."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _without_bytes(path: Path, first: float, last: float) -> Path:
    """A hole: a stretch of the file, as shares of its length, is zeros."""
    content = bytearray(path.read_bytes())
    hole = slice(int(first * len(content)), int(last * len(content)))
    content[hole] = bytes(hole.stop - hole.start)
    path.write_bytes(content)
    return path


def _cut_out(path: Path, first: float, last: float) -> Path:
    """A stretch of the file, as shares of its length, is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: int(first * len(content))] + content[int(last * len(content)) :])
    return path


def _unstated(path: Path, source: Path) -> Path:
    """Packets copied as if to a pipe: the header is never completed, so it states no length."""

    class Pipe:
        def __init__(self) -> None:
            self.file = path.open("wb")

        def write(self, data: bytes) -> int:
            return self.file.write(data)

    pipe = Pipe()
    container = {".mkv": "matroska", ".webm": "webm"}.get(path.suffix, path.suffix[1:])
    with av.open(str(source)) as read, av.open(pipe, "w", format=container) as output:
        stream = output.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    pipe.file.close()
    return path


def _packed(packets: list[Packet]) -> list[Packet]:
    """P-frame and following B-frame in one packet, then an empty one: what Xvid does in AVI."""
    kept: list[Packet] = []
    position = 0
    while position < len(packets):
        group = packets[position : position + 2]
        both = len(group) == 2 and not group[1].is_keyframe and _is_b(bytes(group[1]))
        joint = bytes(group[0])
        if position == 0:
            joint = joint.replace(b"\x00\x00\x01\xb6", _DIVX + b"\x00\x00\x01\xb6", 1)
        kept.append(_packet(joint + (bytes(group[1]) if both else b""), group[0]))
        if both:
            kept.append(_packet(_NOT_CODED, group[1]))
        position += 2 if both else 1
    for number, packet in enumerate(kept):
        packet.pts = packet.dts = number
    return kept


_DIVX = b"\x00\x00\x01\xb2DivX503b1393p\x00"
_NOT_CODED = b"\x00\x00\x01\xb6\x50\x7f"  # a P-VOP without content, a byte or two


def _is_b(vop: bytes) -> bool:
    start = vop.find(b"\x00\x00\x01\xb6")
    return start >= 0 and vop[start + 4] >> 6 == 2


def _packet(content: bytes, like: Packet) -> Packet:
    packet = Packet(content)
    packet.stream, packet.time_base, packet.is_keyframe = (
        like.stream,
        like.time_base,
        like.is_keyframe,
    )
    return packet


def _filtered(name: str, packets: list[Packet]) -> list[Packet]:
    """Packets through a bitstream filter of FFmpeg."""
    bitstream = BitStreamFilterContext(name, packets[0].stream)
    found = [kept for packet in packets for kept in bitstream.filter(packet)]
    return found + bitstream.filter(None)


def _twice(path: Path, **how) -> Path:
    part = encode(path.with_name(f"part{path.suffix}"), **how)
    return joined(path, part, part)


def _two_parts(path: Path, **how) -> Path:
    longer = encode(path.with_name(f"one{path.suffix}"), count=30, **how)
    shorter = encode(path.with_name(f"two{path.suffix}"), count=20, start=400, **how)
    return joined(path, longer, shorter)


def _hole(path: Path, first: float = 0.4, last: float = 0.5, **how) -> Path:
    return _without_bytes(encode(path, **how), first, last)


def _cut(path: Path, first: float = 0.4, last: float = 0.5, **how) -> Path:
    return _cut_out(encode(path, **how), first, last)


def _live(path: Path, **how) -> Path:
    return _unstated(path, encode(path.with_name(f"whole{path.suffix}"), **how))


_LIVE_TICKS = [40 * number + (number % 3) * 7 for number in range(COUNT)]
_SLIDES = [200 * number + (number % 4) * 60 for number in range(COUNT)]

# By name: the file's name and how it is written.
KINDS: dict[str, tuple[str, Callable[..., Path]]] = {
    "mp4-h264": ("a.mp4", partial(encode, options=_x264(b_frames=0))),
    "mp4-h264-b": ("a.mp4", partial(encode, options=_x264())),
    "mp4-h264-one-keyframe": ("a.mp4", partial(encode, options=_x264(600))),
    "mp4-h264-open-gop": ("a.mp4", partial(encode, options=_x264(more=":open-gop=1"))),
    "mp4-h264-intra-refresh": (
        "a.mp4",
        partial(encode, options=_x264(b_frames=0, more=":intra-refresh=1")),
    ),
    "mp4-h264-interlaced": ("a.mp4", partial(encode, options=_x264(more=":tff=1"))),
    "mp4-edit-list": ("a.mp4", partial(encode, options=_x264(), start=-15)),
    "mp4-fragmented": (
        "a.mp4",
        partial(
            encode,
            options=_x264(),
            muxing={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        ),
    ),
    "mp4-fragments": (
        "a.mp4",
        partial(encode, options=_x264(), muxing={"movflags": "frag_keyframe"}),
    ),
    "mp4-hole": ("a.mp4", partial(_hole, options=_x264())),
    "mp4-hevc": ("a.mp4", partial(encode, codec="libx265", options=_x265())),
    "mp4-hevc-open-gop": (
        "a.mp4",
        partial(encode, codec="libx265", options=_x265(open_gop=True)),
    ),
    "mp4-av1": (
        "a.mp4",
        partial(encode, codec="libsvtav1", options=_AV1),
    ),
    "mp4-mpeg4-b": ("a.mp4", partial(encode, codec="mpeg4", options={**_MPEG4, "bf": "2"})),
    "mov-prores": (
        "a.mov",
        partial(encode, codec="prores_ks", pix_fmt="yuv422p10le"),
    ),
    "mov-mjpeg": ("a.mov", partial(encode, codec="mjpeg", pix_fmt="yuvj420p")),
    "mov-qtrle": ("a.mov", partial(encode, codec="qtrle", pix_fmt="rgb24")),
    "mkv-h264-open-gop": ("a.mkv", partial(encode, options=_x264(more=":open-gop=1"))),
    "mkv-vfr": ("a.mkv", partial(encode, options=_x264(), ticks=_LIVE_TICKS)),
    "mkv-late-start": ("a.mkv", partial(encode, options=_x264(), start=777)),
    "mkv-live": ("a.mkv", partial(_live, options=_x264())),
    "mkv-hole": ("a.mkv", partial(_hole, options=_x264())),
    "mkv-ffv1": ("a.mkv", partial(encode, codec="ffv1", options={"g": "10"})),
    "webm-vp9": (
        "a.webm",
        partial(
            encode,
            codec="libvpx-vp9",
            options={**_VP, "cpu-used": "8"},
        ),
    ),
    "webm-vp8-live": (
        "a.webm",
        partial(
            _live, codec="libvpx", options={"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}
        ),
    ),
    "ogv-vp8": ("a.ogv", partial(encode, codec="libvpx", container="ogg", options={"g": "12"})),
    "ts-h264-b": ("a.ts", partial(encode, options=_x264())),
    "ts-h264-open-gop": ("a.ts", partial(encode, options=_x264(more=":open-gop=1"))),
    "ts-hevc-b": ("a.ts", partial(encode, codec="libx265", options=_x265())),
    "ts-mpeg2-b": ("a.ts", partial(encode, codec="mpeg2video", options=_MPEG2)),
    "ts-late-start": ("a.ts", partial(encode, options=_x264(), start=900_000)),
    "ts-joined-twice": ("a.ts", partial(_twice, options=_x264())),
    "ts-joined": ("a.ts", partial(_two_parts, options=_x264())),
    "ts-hole": ("a.ts", partial(_hole, options=_x264())),
    "ts-cut": ("a.ts", partial(_cut, options=_x264())),
    "m2ts-h264-b": (
        "a.m2ts",
        partial(encode, options=_x264(), muxing={"mpegts_m2ts_mode": "1"}),
    ),
    "mts-h264-interlaced": (
        "a.mts",
        partial(encode, container="mpegts", options=_x264(more=":tff=1")),
    ),
    "vob-mpeg2-b": ("a.vob", partial(encode, codec="mpeg2video", options=_MPEG2)),
    "vob-joined": ("a.vob", partial(_twice, codec="mpeg2video", options=_MPEG2)),
    "mpg-mpeg1-b": ("a.mpg", partial(encode, codec="mpeg1video", options=_MPEG2)),
    "avi-mpeg4": ("a.avi", partial(encode, codec="mpeg4", options=_MPEG4)),
    "avi-mpeg4-b": ("a.avi", partial(encode, codec="mpeg4", options={**_MPEG4, "bf": "2"})),
    "avi-mpeg4-packed": (
        "a.avi",
        partial(
            encode, codec="mpeg4", options={**_MPEG4, "bf": "1", "b_strategy": "0"}, edit=_packed
        ),
    ),
    "avi-h264-b": ("a.avi", partial(encode, options=_x264())),
    "flv-h264-b": ("a.flv", partial(encode, options=_x264())),
    "wmv": ("a.wmv", partial(encode, codec="wmv2", options=_MPEG4)),
    "mxf-mpeg2": ("a.mxf", partial(encode, codec="mpeg2video", options=_MPEG2)),
    "nut-h264": ("a.nut", partial(encode, options=_x264())),
    "raw-h264": ("a.264", partial(encode, container="h264", options=_x264())),
    "raw-hevc": ("a.265", partial(encode, codec="libx265", container="hevc", options=_x265())),
    "ivf-vp8": ("a.ivf", partial(encode, codec="libvpx", options={"g": "12"})),
    "y4m": ("a.y4m", partial(encode, codec="wrapped_avframe", container="yuv4mpegpipe")),
    "gif-slides": ("a.gif", partial(encode, codec="gif", pix_fmt="rgb8", ticks=_SLIDES)),
    "apng": ("a.apng", partial(encode, codec="apng", pix_fmt="rgb24")),
}


def write(kind: str, folder: Path) -> Path:
    """Write a file of a kind into a folder of its own."""
    name, make = KINDS[kind]
    place = folder / kind
    place.mkdir()
    return make(place / name)
